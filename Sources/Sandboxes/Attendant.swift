import CLinux
import Confinement
import Glibc
import Namespaces
import Reactor
import Synchronization

/// A process of ours that is where this one cannot go. A program with threads can join no user namespace, so the network
/// of an unprivileged sandbox is made by a second copy of this program, which enters a new user namespace first, sends
/// the descriptors of everything over, and later carries the self-test's probes out.
///
///     this process                                    attendant
///     ─────────────────────────────────────────────   ───────────────────────────────────────────────
///     executes itself with ``argument``          ───▶ user namespace, network namespaces, sockets
///                                                ◀─── done, and all the descriptors; or why not
///     the self-test's probes                     ───▶ tries them
///                                                ◀─── done; or what is not as it should be
///     closes the channel                         ───▶ ends; the command has not been started yet
final class Attendant: Sendable {
    /// Both until ``dismiss()``.
    private let life: Mutex<(channel: CInt, process: pid_t)?>

    /// Executes this program again as an attendant.
    static func start() throws -> Attendant {
        var pair: [CInt] = [-1, -1]
        guard socketpair(AF_UNIX, CInt(SOCK_SEQPACKET.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0, &pair) == 0 else {
            throw SystemError(operation: "make a socket pair", errno: errno)
        }
        defer { close(pair[1]) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, pair[1], STDIN_FILENO)
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0)
        var process = pid_t()
        let arguments = [strdup("sandgate"), strdup(RootlessNetwork.attendantArgument), nil]
        defer { arguments.forEach { free($0) } }
        let status = posix_spawn(&process, "/proc/self/exe", &actions, nil, arguments, environ)
        guard status == 0 else {
            close(pair[0])
            throw SystemError(operation: "execute /proc/self/exe", errno: status)
        }
        return Attendant(channel: pair[0], process: process)
    }

    private init(channel: CInt, process: pid_t) {
        self.life = Mutex((channel, process))
    }

    deinit {
        dismiss()
    }

    /// Lets the attendant end, as it does when its channel ends, and waits for that.
    func dismiss() {
        life.withLock { life in
            guard let (channel, process) = life else { return }
            close(channel)
            while waitpid(process, nil, 0) < 0 && errno == EINTR {}
            life = nil
        }
    }

    private func channel() throws -> CInt {
        guard let channel = life.withLock({ $0?.channel }) else {
            throw AttendantError(description: "the process that made the namespaces has been dismissed")
        }
        return channel
    }

    /// Waits for what the attendant has opened. Throws ``AttendantError`` with its reason when it could not.
    func receiveDescriptors() throws -> [CInt] {
        try AttendantMessage.receive(from: channel()).descriptorsOfSuccess()
    }

    /// Has the probes tried, for as long as which it blocks. Then the attendant has done its work and ends.
    func probe(_ probes: SelfTestProbes) throws(SelfTestFailure) {
        defer { dismiss() }
        let answer: AttendantMessage
        do {
            let channel = try channel()
            try AttendantMessage(text: probes.encoded).send(to: channel)
            answer = try AttendantMessage.receive(from: channel)
        } catch {
            throw .cannotProbe("\(error)")
        }
        guard answer.text.isEmpty else { throw .reported(answer.text) }
    }
}

/// Why an attendant could not do what it is for, in its own words.
struct AttendantError: Error, CustomStringConvertible {
    let description: String
}

/// What goes over the channel: a text, empty for success, and descriptors.
struct AttendantMessage {
    private static let capacity = 8 * 1024

    var text: String
    var descriptors: [CInt] = []

    /// The descriptors, unless the text says why there are none.
    func descriptorsOfSuccess() throws -> [CInt] {
        guard text.isEmpty else { throw AttendantError(description: text) }
        return descriptors
    }

    /// Sends it. A NUL comes first: an empty message would look like the end.
    func send(to channel: CInt) throws {
        let bytes = [0] + Array(text.utf8.prefix(Self.capacity - 1))
        let count = clinux_send_descriptors(channel, bytes, bytes.count, descriptors, descriptors.count)
        guard count == bytes.count else { throw SystemError(operation: "send to another process", errno: errno) }
    }

    /// Waits for one.
    static func receive(from channel: CInt) throws -> AttendantMessage {
        var bytes = [UInt8](repeating: 0, count: capacity)
        var descriptors = [CInt](repeating: -1, count: Int(CLINUX_DESCRIPTORS_MAX))
        var count = 0
        let length = clinux_receive_descriptors(channel, &bytes, bytes.count, &descriptors, &count)
        guard length >= 0 else { throw SystemError(operation: "receive from another process", errno: errno) }
        guard length > 0 else { throw AttendantError(description: "the process that makes the namespaces has ended") }
        let text = String(decoding: bytes[1..<length], as: UTF8.self)
        return AttendantMessage(text: text, descriptors: Array(descriptors.prefix(count)))
    }
}
