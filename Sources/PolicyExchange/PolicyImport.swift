public import EgressPolicy
import PolicyDocument

/// What was read of another tool's document: a policy that allows no more than the original does, and what could not be
/// taken over as it stood.
///
/// Compared is what can be reached: names, addresses, ports and transport. A name that leads to a private address
/// reaches nothing here, whatever the original thinks of it: see guard ranges.
public struct PolicyImport: Hashable, Sendable {
    /// A construct without an equal.
    public struct Note: Hashable, Sendable {
        /// What became of it.
        public enum Effect: String, Hashable, Sendable {
            /// It was taken over, and allows less than the original.
            case narrowed
            /// It was not taken over.
            case leftOut = "left out"
        }

        /// What became of the construct.
        public let effect: Effect
        /// The field: `network.allowedDomains[2]`.
        public let path: String
        /// The line in the original, from 1.
        public let line: Int
        /// The column in the original, from 1, in Unicode scalars.
        public let column: Int
        /// Why, and what to write instead. Printable ASCII.
        public let message: String

        /// `network.allowedDomains[2], line 7: left out: …`.
        public var text: String {
            (path.isEmpty ? "" : "\(path), ") + "line \(line): \(effect.rawValue): \(message)"
        }
    }

    /// A line of the policy that came of it.
    enum Entry: Hashable {
        case rule(Rule)
        case note(Note)
        /// Something to know that is no difference. Printable ASCII.
        case remark(String)
    }

    let entries: [Entry]
    let source: String
    /// What happens to whatever no rule matches.
    public let defaultAction: RuleAction

    /// The policy; it is always enforced.
    public var policy: Policy {
        Policy(
            defaultAction: defaultAction,
            rules: entries.compactMap { if case .rule(let rule) = $0 { rule } else { nil } }
        )
    }

    /// Every construct that has no equal, in the order of the policy.
    public var notes: [Note] {
        entries.compactMap { if case .note(let note) = $0 { note } else { nil } }
    }

    /// The policy as a YAML document; each note is a comment at the place where the construct stood.
    public var yaml: String {
        var lines = ["# \(source)", "networkPolicy:", "  defaultAction: \(defaultAction.rawValue)"]
        let hasRules = entries.contains { if case .rule = $0 { true } else { false } }
        if hasRules { lines.append("  egress:") }
        for entry in entries {
            switch entry {
            case .rule(let rule): lines.append("    " + PolicyDocument.yaml(of: rule))
            case .note(let note): lines.append("    # \(note.text)")
            case .remark(let text): lines.append("    # \(text)")
            }
        }
        if !hasRules { lines.append("  egress: []") }
        return lines.joined(separator: "\n") + "\n"
    }
}
