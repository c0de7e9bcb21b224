/// The three parts of a request line (RFC 9112 3), before the target is understood.
struct HTTPRequestLine: Hashable {
    let method: String
    let target: [UInt8]
    let targetOffset: Int
    let version: HTTPRequestHead.Version

    /// The most bytes of a method; the longest that is registered has 17.
    private static let methodLimit = 64

    /// Parses a line that ends before its line feed.
    init(line: ArraySlice<UInt8>) throws(WireError) {
        guard line.last == HTTPSyntax.carriageReturn else {
            throw WireError(offset: line.endIndex, problem: "a bare line feed after the request line")
        }
        let parts = line.dropLast().split(separator: HTTPSyntax.space, omittingEmptySubsequences: false)
        guard parts.count == 3 else {
            throw WireError(
                offset: line.startIndex,
                problem: "a request line is not three words with one space between"
            )
        }
        guard parts[0].count <= Self.methodLimit, HTTPSyntax.isToken(parts[0]) else {
            throw WireError(offset: parts[0].startIndex, problem: "the method is no token of at most 64 bytes")
        }
        guard !parts[1].isEmpty, parts[1].allSatisfy(HTTPSyntax.isTargetByte) else {
            throw WireError(offset: parts[1].startIndex, problem: "a byte in the request target that no URI has")
        }
        if parts[2].elementsEqual("HTTP/1.1".utf8) {
            self.version = .http11
        } else if parts[2].elementsEqual("HTTP/1.0".utf8) {
            self.version = .http10
        } else {
            throw WireError(offset: parts[2].startIndex, problem: "the version is not HTTP/1.1 or HTTP/1.0")
        }
        self.method = String(decoding: parts[0], as: UTF8.self)
        self.target = Array(parts[1])
        self.targetOffset = parts[1].startIndex
    }

    /// Tells the four forms apart by the method, as RFC 9112 3.2 binds them.
    func parseTarget() throws(WireError) -> HTTPRequestHead.Target {
        if method == "CONNECT" {
            let authority = try HTTPAuthority(ascii: target, at: targetOffset)
            guard authority.port != nil else {
                throw WireError(offset: targetOffset, problem: "CONNECT names no port")
            }
            return .authority(authority)
        }
        if target[0] == UInt8(ascii: "/") { return .origin(target) }
        if target == [UInt8(ascii: "*")] {
            guard method == "OPTIONS" else {
                throw WireError(offset: targetOffset, problem: "the asterisk is a target for OPTIONS only")
            }
            return .asterisk
        }
        let scheme = "http://"
        guard HTTPSyntax.isEqual(target.prefix(scheme.utf8.count), ignoringCase: scheme) else {
            throw WireError(offset: targetOffset, problem: "the request target is no path and no http URI")
        }
        let rest = target.dropFirst(scheme.utf8.count)
        // A backslash ends the authority for some readers; the host parser refuses it for all.
        let authorityEnd = rest.firstIndex { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "?") } ?? rest.endIndex
        return .absolute(
            try HTTPAuthority(ascii: rest[..<authorityEnd], at: targetOffset + rest.startIndex),
            pathAndQuery: originForm(of: rest[authorityEnd...])
        )
    }

    /// What follows the authority of a URI, as the server is asked for it (RFC 9112 3.2.1 and 3.2.4).
    private func originForm(of rest: ArraySlice<UInt8>) -> [UInt8] {
        switch rest.first {
        case nil: [UInt8(ascii: method == "OPTIONS" ? "*" : "/")]
        case UInt8(ascii: "?"): [UInt8(ascii: "/")] + rest
        default: Array(rest)
        }
    }
}
