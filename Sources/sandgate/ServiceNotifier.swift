import CLinux
import Glibc
import Logging

/// Tells systemd how the daemon is (sd_notify(3)): ready, alive, stopping; and has it keep a descriptor from one process
/// to the next (FDSTORE). Does nothing where nobody asked for it.
struct ServiceNotifier: Sendable {
    private let path: String?
    /// Open from the start, and as long as the process lives: who has no descriptor left later must not fall silent, or
    /// systemd would never hear that it serves, and take it for one that hangs. -1 where nobody asked.
    private let descriptor: CInt
    /// How often the watchdog wants to hear of us, in microseconds.
    private let watchdogMicroseconds: UInt64?

    /// Where it is said that something could not be told.
    private let log: Logger

    /// Reads what systemd left in the environment. Throws where there is no socket to be had.
    init(log: Logger) throws {
        self.log = log
        path = getenv("NOTIFY_SOCKET").map { String(cString: $0) }
        watchdogMicroseconds = getenv("WATCHDOG_USEC").flatMap { UInt64(String(cString: $0)) }
        guard path != nil else {
            descriptor = -1
            return
        }
        descriptor = Glibc.socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else {
            throw SetupError("cannot open a socket for NOTIFY_SOCKET: \(String(cString: strerror(errno)))")
        }
    }

    /// Clients can connect.
    func ready() { send("READY=1\nSTATUS=serving") }

    /// Whether somebody listens.
    var isHeard: Bool { path != nil }

    /// Has a descriptor kept for the process that follows; returns when it is, or when nobody says so for five seconds.
    func keep(_ descriptor: CInt) {
        // Without polling: a socket whose other end is closed would be thrown away.
        send("FDSTORE=1\nFDNAME=\(Self.storedName)\nFDPOLL=0", with: descriptor)
        // What was sent by a process that has ended meanwhile is not accepted: the other end is closed when everything
        // before it has been.
        var ends: [CInt] = [-1, -1]
        guard clinux_pipe(&ends) == 0 else { return }
        send("BARRIER=1", with: ends[1])
        close(ends[1])
        var poll = pollfd(fd: ends[0], events: 0, revents: 0)
        _ = Glibc.poll(&poll, 1, 5_000)
        close(ends[0])
    }

    /// The descriptor that the process before this one had kept, if any, which becomes the caller's. To be called once,
    /// before anything is executed.
    static func kept() -> CInt? {
        defer { for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] { unsetenv(name) } }
        func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
        guard variable("LISTEN_PID").flatMap(pid_t.init) == getpid(),
            let count = variable("LISTEN_FDS").flatMap(CInt.init), (1...1_024).contains(count)
        else { return nil }
        let names = (variable("LISTEN_FDNAMES") ?? "").split(separator: ":", omittingEmptySubsequences: false)
        var kept: CInt?
        for (number, descriptor) in (firstPassed..<firstPassed + count).enumerated() {
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
            if kept == nil, names.indices.contains(number), names[number] == storedName {
                kept = descriptor
            } else {
                close(descriptor)
            }
        }
        return kept
    }

    /// Has nothing kept any more.
    func forget() { send("FDSTOREREMOVE=1\nFDNAME=\(Self.storedName)") }

    private static let storedName = "sandgate-hot-restart"
    /// SD_LISTEN_FDS_START of sd_listen_fds(3).
    private static let firstPassed: CInt = 3

    /// The daemon ends.
    func stopping() { send("STOPPING=1") }

    /// Tells now and then that we live, until the task is cancelled. An executor that hangs tells nothing, nor does one
    /// thread of those that `lives` asks.
    func keepAlive(_ lives: @Sendable () async -> Void) async {
        while !Task.isCancelled {
            guard let watchdogMicroseconds, path != nil else {
                try? await Task.sleep(for: .seconds(86_400))
                continue
            }
            await lives()
            send("WATCHDOG=1")
            try? await Task.sleep(for: .microseconds(watchdogMicroseconds / 3))
        }
    }

    private func send(_ text: String, with passed: CInt? = nil) {
        guard let path else { return }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        var bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
            return complain(of: text, ENAMETOOLONG)
        }
        // An abstract socket is written with @ in place of the NUL.
        if bytes.first == UInt8(ascii: "@") { bytes[0] = 0 }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let length = socklen_t(MemoryLayout<sa_family_t>.size + bytes.count)
        // Each time: the service manager may have bound its socket anew.
        let isConnected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, length) == 0 }
        }
        guard isConnected else { return complain(of: text, errno) }
        let message = Array(text.utf8)
        let descriptors = passed.map { [$0] } ?? []
        let sent = clinux_send_descriptors(descriptor, message, message.count, descriptors, descriptors.count)
        if sent < 0 { complain(of: text, errno) }
    }

    private func complain(of text: String, _ code: CInt) {
        let word = text.prefix { $0 != "\n" }
        log.error("the service manager was not told \(word): \(String(cString: strerror(code)))")
    }
}
