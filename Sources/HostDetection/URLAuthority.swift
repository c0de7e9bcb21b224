import EgressPolicy
import NetPrimitives

/// The host and port that a URL leads to. User name, password, path and query are passed over and never kept.
struct URLAuthority: Hashable {
    let target: Target
    let port: UInt16

    enum Outcome: Hashable {
        case host(URLAuthority)
        /// Leads to no host.
        case local
        /// Not a URL, or none whose port is known.
        case unknown
    }

    private static let ports: [String: UInt16] = [
        "https": 443, "http": 80, "ssh": 22, "git": 9418, "ftp": 21, "ftps": 990,
    ]
    private static let localSchemes: Set<String> = ["file", "cdrom", "copy", "rsh", "store", "data"]

    /// Reads a URL. Of a compound scheme (`sparse+https`, `git+ssh`, `mirror+http`) the last part counts.
    static func parse(_ text: String) -> Outcome {
        guard let colon = text.utf8.firstIndex(of: UInt8(ascii: ":")) else { return .unknown }
        let scheme = text[..<colon].lowercased().split(separator: "+").last.map(String.init) ?? ""
        if localSchemes.contains(scheme) { return .local }
        guard let defaultPort = ports[scheme], text[colon...].hasPrefix("://") else { return .unknown }
        let rest = text[colon...].dropFirst(3)
        let authority = rest.prefix { !"/?#\\".contains($0) }
        let host = authority.lastIndex(of: "@").map { authority[authority.index(after: $0)...] } ?? authority
        return parse(host: host, defaultPort: defaultPort)
    }

    /// Reads what git takes for a remote besides: `user@host:path`. Paths are local.
    static func parse(remote text: String) -> Outcome {
        if text.contains("://") { return parse(text) }
        guard let colon = text.firstIndex(of: ":"), !text[..<colon].contains("/") else { return .local }
        // `transport::address` belongs to a helper of git's.
        guard !text[colon...].hasPrefix("::") else { return .unknown }
        let host = text[..<colon]
        return parse(host: host.lastIndex(of: "@").map { host[host.index(after: $0)...] } ?? host, defaultPort: 22)
    }

    private static func parse(host text: Substring, defaultPort: UInt16) -> Outcome {
        var host = text
        var port = defaultPort
        if host.hasPrefix("["), let bracket = host.firstIndex(of: "]") {
            let behind = host[host.index(after: bracket)...]
            host = host[host.index(after: host.startIndex)..<bracket]
            if behind.hasPrefix(":"), let number = UInt16(behind.dropFirst()) {
                port = number
            } else if !behind.isEmpty {
                return .unknown
            }
        } else if let colon = host.lastIndex(of: ":") {
            let digits = host[host.index(after: colon)...]
            if !digits.isEmpty {
                guard let number = UInt16(digits) else { return .unknown }
                port = number
            }
            host = host[..<colon]
        }
        // Wildcards, prefixes and the like are targets, but no hosts.
        guard port > 0, !host.contains("*"), !host.contains("/"), let target = try? Target(parsing: String(host)) else {
            return .unknown
        }
        return .host(URLAuthority(target: target, port: port))
    }
}
