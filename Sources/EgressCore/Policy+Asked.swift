public import EgressPolicy
public import NetPrimitives

extension Policy {
    /// What begins the comments of rules that answers have made.
    private static let askedMark = "asked "

    /// The comment of a rule that an answer makes: who, and when.
    public static func askedComment(author: String, at time: WallTime) -> String {
        "\(askedMark)\(Timestamp.text(of: time)), allowed by \(author)"
    }

    /// The policy with a rule that an answer has made: behind all others, none of which speaks of it. Rules of earlier
    /// answers about the same that have expired are dropped, so that answering again and again makes no heap of them.
    public func allowing(asked rule: Rule, at time: WallTime) -> Policy {
        var changed = self
        changed.rules.removeAll { old in
            old.target == rule.target && (old.expiresAt ?? time.advanced(bySeconds: 1)) <= time
                && (old.comment ?? "").hasPrefix(Self.askedMark)
        }
        changed.rules.append(rule)
        return changed
    }
}
