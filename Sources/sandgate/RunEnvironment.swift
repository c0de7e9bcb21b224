import FilePrimitives
import Glibc

/// Which proxies the command is told of. Both are one port; it tells by the first byte what a client speaks.
struct ProxyAnnouncement: OptionSet {
    let rawValue: UInt8

    /// `HTTP_PROXY` and `HTTPS_PROXY`.
    static let http = ProxyAnnouncement(rawValue: 1)
    /// `ALL_PROXY` as SOCKS5, names resolved by the proxy.
    static let socks = ProxyAnnouncement(rawValue: 2)
}

/// The command's environment: ours, without the node's proxies, which it could not reach, and with the sandbox's own
/// if that is announced.
enum RunEnvironment {
    private static let proxyVariables = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"]

    static func make(announcing proxies: ProxyAnnouncement, at port: UInt16) -> [SystemString] {
        let names = Set((proxyVariables + proxyVariables.map { $0.lowercased() }).map { SystemString($0) })
        var variables = current().filter { !names.contains($0.variableName) }
        if proxies.contains(.http) {
            variables +=
                both("HTTP_PROXY", "http://127.0.0.1:\(port)") + both("HTTPS_PROXY", "http://127.0.0.1:\(port)")
        }
        if proxies.contains(.socks) { variables += both("ALL_PROXY", "socks5h://127.0.0.1:\(port)") }
        if !proxies.isEmpty { variables += both("NO_PROXY", "localhost,127.0.0.1,::1") }
        return variables
    }

    /// Some programs read only the upper-case name, some only the other.
    private static func both(_ name: String, _ value: String) -> [SystemString] {
        [SystemString("\(name)=\(value)"), SystemString("\(name.lowercased())=\(value)")]
    }

    /// The variables of this process, each `NAME=VALUE`.
    static func current() -> [SystemString] {
        var variables: [SystemString] = []
        var pointer = environ
        while let variable = pointer.pointee {
            variables.append(SystemString(cString: variable))
            pointer += 1
        }
        return variables
    }
}
