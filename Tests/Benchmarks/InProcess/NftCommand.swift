import Glibc

/// nft(8), run to its end: what a program without netlink of its own does.
enum NftCommand {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// `nft -f -` with `script` on its standard input, in the caller's network namespace.
    static func run(_ script: String) throws {
        var ends: [CInt] = [0, 0]
        guard pipe(&ends) == 0 else { throw Failure(description: "cannot make a pipe: errno \(errno)") }
        let (output, input) = (ends[0], ends[1])
        let child: pid_t
        do {
            defer { close(output) }
            child = try spawn(reading: output, closing: input)
        }
        do {
            defer { close(input) }
            try write(script, to: input)
        }
        var status: CInt = 0
        while waitpid(child, &status, 0) < 0 {
            guard errno == EINTR else { throw Failure(description: "cannot wait for nft: errno \(errno)") }
        }
        guard status == 0 else { throw Failure(description: "nft ended with status \(status)") }
    }

    private static func spawn(reading output: CInt, closing input: CInt) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addclose(&actions, input)
        posix_spawn_file_actions_adddup2(&actions, output, STDIN_FILENO)
        let words = ["nft", "-f", "-"]
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { arguments.forEach { free($0) } }
        var child: pid_t = 0
        let status = posix_spawnp(&child, "nft", &actions, nil, &arguments, environ)
        guard status == 0 else { throw Failure(description: "cannot start nft: errno \(status)") }
        return child
    }

    private static func write(_ text: String, to descriptor: CInt) throws {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            guard count > 0 else { throw Failure(description: "nft does not read: errno \(errno)") }
            bytes = bytes.dropFirst(count)
        }
    }
}
