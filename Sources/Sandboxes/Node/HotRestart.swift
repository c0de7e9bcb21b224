import CLinux
import Datapath
import FoundationEssentials
import Glibc
import NetPrimitives
import Reactor

/// What a process that ends hands to the one that follows, so that nothing of the sandboxes' traffic ends with it: the
/// listeners with what waits in them, queries that wait for an answer, and connections with what is known of them.
///
///     process that ends                                       process that follows
///     ───────────────────────────────────────────────────    ──────────────────────────────────────
///     every sandbox stops and gives up its sockets
///     description ─▶ memfd ┐
///     sockets ─────────────┴▶ DescriptorStash ─▶ systemd ───▶ description, sockets
///                                                             each sandbox is adopted: rules, pins, sockets; the policy
///                                                             on the disk judges every connection again
///
/// The stash is one descriptor. While nobody has it in hand, the kernel's rules refuse what they always refuse, and what
/// they redirect waits. When it is lost, everything in it is closed.
public struct HotRestart: Sendable {
    private(set) var sandboxes: [String: HandedSandbox]

    init(_ sandboxes: [String: HandedSandbox]) {
        self.sandboxes = sandboxes
    }

    /// How many sandboxes are in it.
    public var count: Int { sandboxes.count }

    /// Takes out what there is of a sandbox.
    mutating func take(_ id: String) -> HandedSandbox? {
        sandboxes.removeValue(forKey: id)
    }

    /// Closes what nobody goes on with.
    func close() {
        sandboxes.values.forEach { $0.close() }
    }
}

// MARK: - Packing

extension HotRestart {
    /// What is written of it. Descriptors follow in the order of what is written.
    fileprivate struct Description: Codable {
        struct Sandbox: Codable {
            struct Query: Codable {
                let family: Int
                let message: [UInt8]
                let source: String
            }

            struct Pass: Codable {
                let mark: UInt32
                let priority: UInt32
            }

            let id: String
            let pass: Pass?
            let families: [String]
            let queries: [Query]
            let tunnels: [HandedTunnel.Description]
        }

        /// Of a process that describes it otherwise, nothing is taken over.
        static let version = 1
        var version = Description.version
        var sandboxes: [Sandbox] = []
    }

    /// Puts everything into one descriptor, which becomes the caller's. What is in it is closed here in any case.
    func pack() throws -> CInt {
        defer { sandboxes.values.flatMap(\.descriptors).forEach(Sockets.close) }
        let sorted = sandboxes.sorted { $0.key < $1.key }
        var description = Description()
        description.sandboxes = sorted.map { id, handed in
            Description.Sandbox(
                id: id,
                pass: handed.pass.map { .init(mark: $0.mark, priority: $0.priority) },
                families: handed.families.map { $0.family == .v4 ? "v4" : "v6" },
                queries: handed.queries.map {
                    .init(family: $0.family, message: $0.query.message, source: "\($0.query.source)")
                },
                tunnels: handed.tunnels.map(\.description)
            )
        }
        let file = try Self.memoryFile(Array(try JSONEncoder().encode(description)))
        defer { Sockets.close(file) }
        return try DescriptorStash.put([file] + sorted.flatMap(\.value.descriptors))
    }

    /// Takes out what another process put in. Throws with everything closed when it is not what was expected.
    public init(unpacking stash: CInt) throws {
        var rest = try DescriptorStash.take(stash)[...]
        defer { rest.forEach(Sockets.close) }
        guard let file = rest.popFirst() else { throw NodeError.failed("nothing was handed over") }
        defer { Sockets.close(file) }
        let description: Description
        do {
            description = try JSONDecoder().decode(Description.self, from: Data(try Self.contents(of: file)))
        } catch {
            throw NodeError.failed("what was handed over cannot be read: \(error)")
        }
        guard description.version == Description.version,
            rest.count == description.sandboxes.reduce(0, { $0 + $1.descriptorCount })
        else { throw NodeError.failed("what was handed over is of another version, or incomplete") }
        sandboxes = [:]
        for part in description.sandboxes {
            var handed = HandedSandbox(families: [])
            handed.pass = part.pass.map { UpstreamPass(mark: $0.mark, priority: $0.priority) }
            for family in part.families {
                handed.families.append(.init(unpacking: &rest, family: family == "v4" ? .v4 : .v6))
            }
            for query in part.queries {
                guard let source = Endpoint(parsing: query.source, defaultPort: 0) else { continue }
                handed.queries.append((query.family, HandedQuery(message: query.message, source: source)))
            }
            for tunnel in part.tunnels {
                let own = Array(rest.prefix(tunnel.descriptorCount))
                rest = rest.dropFirst(own.count)
                handed.tunnels.append(HandedTunnel(tunnel, descriptors: own))
            }
            sandboxes.updateValue(handed, forKey: part.id)?.close()
        }
    }

    private static func memoryFile(_ bytes: [UInt8]) throws(SystemError) -> CInt {
        let file = clinux_memory_file("sandgate-hot-restart")
        guard file >= 0 else { throw .current("make a file in memory") }
        var offset = 0
        while offset < bytes.count {
            let count = bytes[offset...].withUnsafeBytes { pwrite(file, $0.baseAddress, $0.count, off_t(offset)) }
            guard count > 0 else {
                let error = SystemError.current("write a file in memory")
                Sockets.close(file)
                throw error
            }
            offset += count
        }
        return file
    }

    private static func contents(of file: CInt) throws(SystemError) -> [UInt8] {
        var status = stat()
        guard fstat(file, &status) == 0 else { throw .current("read a file in memory") }
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        var offset = 0
        while offset < bytes.count {
            let count = bytes[offset...].withUnsafeMutableBytes {
                pread(file, $0.baseAddress, $0.count, off_t(offset))
            }
            guard count > 0 else { throw .current("read a file in memory") }
            offset += count
        }
        return bytes
    }
}

extension HotRestart.Description.Sandbox {
    fileprivate var descriptorCount: Int {
        families.count * InsideSockets.Family.count + tunnels.reduce(0) { $0 + $1.descriptorCount }
    }
}
