import CLinux
import Glibc

/// What machine this is, as far as people ask when something does not work.
struct Machine {
    /// A container runtime that answers, or does not, on its socket.
    struct Runtime: Encodable {
        let name: String
        let socket: String
        let reachable: Bool
        let detail: String
    }

    let kernel: String
    let distribution: String
    /// The kind of container that this runs in, if it does.
    let container: String?
    let runtimes: [Runtime]

    init() {
        var name = utsname()
        uname(&name)
        kernel = withUnsafeBytes(of: &name.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        distribution = Self.distributionName()
        container = Self.containerKind()
        let candidates = [
            ("docker", "/run/docker.sock"), ("containerd", "/run/containerd/containerd.sock"),
            ("podman", "/run/podman/podman.sock"), ("cri-o", "/run/crio/crio.sock"),
        ]
        runtimes = candidates.compactMap { name, path in
            guard access(path, F_OK) == 0 else { return nil }
            let failure = Self.connect(path)
            let detail = failure == 0 ? "answers" : String(cString: strerror(failure))
            return Runtime(name: name, socket: path, reachable: failure == 0, detail: detail)
        }
    }

    private static func distributionName() -> String {
        guard let bytes = try? PolicyFile.read("/etc/os-release") else { return "unknown distribution" }
        for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") where line.hasPrefix("PRETTY_NAME=") {
            return line.dropFirst("PRETTY_NAME=".count).filter { $0 != "\"" }
        }
        return "unknown distribution"
    }

    private static func containerKind() -> String? {
        if let kind = getenv("container") { return String(cString: kind) }
        if access("/.dockerenv", F_OK) == 0 { return "docker" }
        if access("/run/.containerenv", F_OK) == 0 { return "podman" }
        return getenv("KUBERNETES_SERVICE_HOST") == nil ? nil : "kubernetes"
    }

    /// 0, or the error number.
    private static func connect(_ path: String) -> CInt {
        let descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return errno }
        defer { close(descriptor) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8.prefix($0.count - 1)) }
        let status = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        return status == 0 ? 0 : errno
    }
}
