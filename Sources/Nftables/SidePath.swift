/// Something in a network namespace that can take packets past the rules on its inet hooks.
public struct SidePath: Hashable, Sendable {
    /// What it is, and of what: `queueing discipline clsact on eth0`. Names in it are the choice of whoever made it; what is not
    /// printable ASCII in them is escaped, as `\u{1b}`.
    public let what: String
    /// What takes it away, as one would type it: `tc qdisc del dev eth0 clsact`. Somebody will, as root: no name is in it that a
    /// shell or the tool could take for more than a name (``isPlain(_:)``).
    public let remedy: String

    init(what: String, remedy: String) {
        self.what = what.unicodeScalars.map { scalar in
            (0x20...0x7e).contains(scalar.value) ? "\(scalar)" : "\\u{\(String(scalar.value, radix: 16))}"
        }.joined()
        self.remedy = remedy
    }

    /// Whether a name is letters, digits, dots, hyphens and underscores, and no option.
    static func isPlain(_ name: String) -> Bool {
        guard let first = name.utf8.first, first != UInt8(ascii: "-") else { return false }
        return name.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
            case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"): true
            default: false
            }
        }
    }
}

extension SidePath: CustomStringConvertible {
    /// `queueing discipline clsact on eth0 (tc qdisc del dev eth0 clsact)`.
    public var description: String { "\(what) (\(remedy))" }
}

extension SidePath {
    /// Why a network with these is refused; `nil` when there are none. `place` is "this namespace", `consent` what has them
    /// accepted.
    public static func refusal(of found: [SidePath], in place: String, consent: String) -> String? {
        guard let first = found.first else { return nil }
        let others = found.count > 1 ? " and \(found.count - 1) more" : ""
        let remedy = "remove it (\(first.remedy)), or say \(consent)"
        return "\(first.what)\(others) in \(place) could take packets past the rules: \(remedy)"
    }
}
