internal import Glibc

/// The kernel's limits on namespaces, `/proc/sys/user/max_*_namespaces` (namespaces(7)). Where one is reached, or is 0 to
/// forbid them, making such a namespace fails with "No space left on device", which says nothing.
public enum NamespaceLimit: String, CaseIterable, Sendable {
    case ipc
    case mount = "mnt"
    case network = "net"
    case process = "pid"
    case user

    /// The sysctl.
    public var setting: String { "user.max_\(rawValue)_namespaces" }

    /// What stands behind `error` and what to do, for making namespaces of these kinds; empty for other errors.
    public static func cause(_ error: CInt, of kinds: [NamespaceLimit]) -> String {
        cause(error, of: kinds) { KernelSetting.value($0) }
    }

    static func cause(_ error: CInt, of kinds: [NamespaceLimit], value: (String) -> String?) -> String {
        guard error == ENOSPC else { return "" }
        let forbidden = kinds.filter { value("user/max_\($0.rawValue)_namespaces") == "0" }.map(\.setting)
        // A process in a user namespace sees that one's limits, not those around it, which hold as well.
        let cause =
            forbidden.isEmpty
            ? "\(kinds.map(\.setting).joined(separator: " or ")) is reached, here or outside"
            : "\(forbidden.joined(separator: " and ")) forbids it"
        let names = forbidden.isEmpty ? kinds.map(\.setting) : forbidden
        return "\(cause): sudo sysctl \(names.map { "\($0)=15000" }.joined(separator: " "))"
    }
}

/// The kernel's settings, `/proc/sys`.
enum KernelSetting {
    /// The first word of one, by its path there; `nil` when there is none.
    static func value(_ path: String) -> String? {
        contents(of: "/proc/sys/\(path)")?.split(whereSeparator: \.isWhitespace).first.map(String.init)
    }

    /// All of a file, which the kernel gives out in parts.
    static func contents(of path: String) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var contents: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 8192)
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { return nil }
            if count == 0 { return String(decoding: contents, as: UTF8.self) }
            contents += buffer.prefix(count)
        }
    }
}
