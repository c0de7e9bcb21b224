// From the request line and the fields to what they mean together.
extension HTTPRequestHead {
    init(_ line: HTTPRequestLine, fields: [HTTPField], length: Int) throws(WireError) {
        let target = try line.parseTarget()
        let options = try Self.connectionOptions(of: fields)
        self.method = line.method
        self.target = target
        self.host = try Self.host(of: target, fields)
        self.framing = try Self.framing(of: line, fields)
        self.length = length
        self.isPersistent = line.version == .http11 && !options.contains("close")
        self.version = line.version
        self.fields = fields
        self.connectionOptions = options
        try Self.checkExpectation(fields)

        let upgrades = fields.filter { $0.key == "upgrade" }
        self.asksForWebSocket =
            line.method == "GET" && line.version == .http11 && self.framing == .none && options.contains("upgrade")
            && upgrades.count == 1 && HTTPSyntax.isEqual(upgrades[0].value, ignoringCase: "websocket")
            && fields.contains { $0.key == "sec-websocket-key" }
    }

    /// Exactly one Host, which must not contradict the target (RFC 9112 3.2 and 3.2.2).
    private static func host(of target: Target, _ fields: [HTTPField]) throws(WireError) -> HTTPAuthority {
        var named: HTTPAuthority?
        for field in fields where field.key == "host" {
            guard named == nil else { throw WireError(offset: field.offset, problem: "more than one Host") }
            named = try HTTPAuthority(ascii: field.value, at: field.offset)
        }
        if case .authority(let authority) = target {
            guard let named else { return authority }
            guard named.host == authority.host, named.port == nil || named.port == authority.port else {
                throw WireError(offset: 0, problem: "Host is not the one that CONNECT names")
            }
            return authority
        }
        guard let named else { throw WireError(offset: 0, problem: "no Host") }
        if case .absolute(let authority, _) = target {
            guard named.host == authority.host, named.port ?? 80 == authority.port ?? 80 else {
                throw WireError(offset: 0, problem: "Host is not the one of the request target")
            }
        }
        return named
    }

    /// How the body ends, when that can be read in one way only (RFC 9112 6.3).
    private static func framing(of line: HTTPRequestLine, _ fields: [HTTPField]) throws(WireError) -> HTTPFraming {
        var framing: HTTPFraming?
        for field in fields where field.key == "content-length" || field.key == "transfer-encoding" {
            guard framing == nil else {
                throw WireError(offset: field.offset, problem: "more than one Content-Length or Transfer-Encoding")
            }
            if field.key == "content-length" {
                guard let length = HTTPSyntax.decimal(field.value) else {
                    throw WireError(offset: field.offset, problem: "Content-Length is not a number")
                }
                framing = .length(length)
            } else {
                guard line.version == .http11, HTTPSyntax.isEqual(field.value, ignoringCase: "chunked") else {
                    throw WireError(offset: field.offset, problem: "Transfer-Encoding is not chunked on HTTP/1.1")
                }
                framing = .chunked
            }
        }
        // What a body of CONNECT would mean is not defined (RFC 9110 9.3.6); an empty one is none.
        if line.method == "CONNECT" && framing == .length(0) { return .none }
        return framing ?? .none
    }

    private static func connectionOptions(of fields: [HTTPField]) throws(WireError) -> Set<String> {
        var options: Set<String> = []
        for field in fields where field.key == "connection" {
            for member in HTTPSyntax.listMembers(field.value[...]) {
                guard HTTPSyntax.isToken(member) else {
                    throw WireError(offset: field.offset, problem: "a Connection option that is no token")
                }
                let option = String(decoding: HTTPSyntax.lowercased(member), as: UTF8.self)
                // To a reader that removes what is named, the message would be another one.
                guard !["host", "content-length", "transfer-encoding"].contains(option) else {
                    throw WireError(offset: field.offset, problem: "Connection names a field that the message needs")
                }
                options.insert(option)
            }
        }
        return options
    }

    private static func checkExpectation(_ fields: [HTTPField]) throws(WireError) {
        let expectations = fields.filter { $0.key == "expect" }
        guard let first = expectations.first else { return }
        guard expectations.count == 1, HTTPSyntax.isEqual(first.value, ignoringCase: "100-continue") else {
            throw WireError(offset: first.offset, problem: "Expect is not 100-continue")
        }
    }
}
