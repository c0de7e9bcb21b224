/// Text for a terminal: what a sandbox chose must not move the cursor, hide text or look like something else.
package enum Printable {
    /// `text` with everything but printable ASCII escaped as `\u{1b}`, and a backslash doubled, cut to `limit`
    /// characters.
    package static func text(_ text: some StringProtocol, limit: Int = 253) -> String {
        escaped(text, backslash: "\\\\", limit: limit)
    }

    /// A name as ``text(_:limit:)`` shows it, but for the backslash: a name from the wire is in presentation form (RFC 1035
    /// 5.1), where that escapes already.
    package static func name(_ name: some StringProtocol, limit: Int = 253) -> String {
        escaped(name, backslash: "\\", limit: limit)
    }

    /// The name or else the address, the port, and what is not TCP: `files.example:443`, `[2001:db8::1]:53/udp`; `nil` where
    /// neither name nor address is known.
    package static func destination(
        host: String?,
        address: String?,
        port: UInt64?,
        protocolName: String?
    ) -> String? {
        let transport = protocolName.map { $0 == "tcp" ? "" : "/" + text($0) } ?? ""
        let ending = (port.map { ":\($0)" } ?? "") + transport
        if let host { return name(host) + ending }
        return address.map { (port != nil && $0.contains(":") ? "[\(text($0))]" : text($0)) + ending }
    }

    private static func escaped(_ text: some StringProtocol, backslash: String, limit: Int) -> String {
        var shown = ""
        for scalar in text.unicodeScalars {
            guard shown.utf8.count < limit else { return shown + "..." }
            switch scalar.value {
            case 0x5C: shown += backslash
            case 0x20...0x7E: shown.unicodeScalars.append(scalar)
            default: shown += "\\u{\(String(scalar.value, radix: 16))}"
            }
        }
        return shown
    }
}

/// Terminal attributes (ECMA-48 SGR), or none.
enum Style: String {
    case bold = "1"
    case dim = "2"
    case red = "31"
    case yellow = "33"

    /// `text` in this style when `colour` holds.
    func paint(_ text: String, if colour: Bool) -> String {
        colour ? "\u{1B}[\(rawValue)m\(text)\u{1B}[0m" : text
    }
}
