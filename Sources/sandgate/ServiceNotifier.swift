import Glibc

/// Tells systemd how the daemon is (sd_notify(3)): ready, alive, stopping. Does nothing where nobody asked for it.
struct ServiceNotifier: Sendable {
    private let path: String?
    /// How often the watchdog wants to hear of us, in microseconds.
    private let watchdogMicroseconds: UInt64?

    /// Reads what systemd left in the environment.
    init() {
        path = getenv("NOTIFY_SOCKET").map { String(cString: $0) }
        watchdogMicroseconds = getenv("WATCHDOG_USEC").flatMap { UInt64(String(cString: $0)) }
    }

    /// Clients can connect.
    func ready() { send("READY=1\nSTATUS=serving") }

    /// The daemon ends.
    func stopping() { send("STOPPING=1") }

    /// Tells now and then that we live, until the task is cancelled. An executor that hangs tells nothing.
    func keepAlive() async {
        while !Task.isCancelled {
            guard let watchdogMicroseconds, path != nil else {
                try? await Task.sleep(for: .seconds(86_400))
                continue
            }
            send("WATCHDOG=1")
            try? await Task.sleep(for: .microseconds(watchdogMicroseconds / 3))
        }
    }

    private func send(_ text: String) {
        guard let path else { return }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        var bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return }
        // An abstract socket is written with @ in place of the NUL.
        if bytes.first == UInt8(ascii: "@") { bytes[0] = 0 }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let length = socklen_t(MemoryLayout<sa_family_t>.size + bytes.count)
        let descriptor = Glibc.socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        let message = Array(text.utf8)
        _ = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                sendto(descriptor, message, message.count, CInt(MSG_NOSIGNAL), $0, length)
            }
        }
    }
}
