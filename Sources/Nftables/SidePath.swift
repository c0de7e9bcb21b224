/// Something in a network namespace that can take packets past the rules on its inet hooks.
public struct SidePath: Hashable, Sendable {
    /// What it is, and of what: `queueing discipline clsact on eth0`. Names in it are the choice of whoever made it.
    public let what: String
    /// What takes it away, as one would type it: `tc qdisc del dev eth0 clsact`.
    public let remedy: String
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
