import EgressPolicy
import NetPrimitives

/// A policy in another tool's form, and what that form cannot say.
public struct PolicyExport: Hashable, Sendable {
    /// Something that the form cannot say.
    public struct Note: Hashable, Sendable {
        /// What became of it.
        public enum Effect: String, Hashable, Sendable {
            /// It is written, and allows less than the policy.
            case narrowed
            /// It is not written.
            case leftOut = "left out"
            /// It is written, and allows more than the policy.
            case widened
        }

        /// What became of it.
        public let effect: Effect
        /// The field of the policy: `egress[2]`.
        public let path: String
        /// Why. Printable ASCII.
        public let message: String

        /// `egress[2]: left out: …`.
        public var text: String { "\(path): \(effect.rawValue): \(message)" }

        init(_ effect: Effect, _ path: String, _ message: String) {
            self.effect = effect
            self.path = path
            self.message = Excerpt.text(message, limit: 400)
        }
    }

    /// The document, ending with a line break.
    public let document: String
    /// Everything that it does not say, in the order of the policy.
    public let notes: [Note]
}

extension PolicyExport.Note {
    /// That a set-up phase cannot be said.
    static func leftOut(_ setup: SetupPhase) -> Self {
        let rules = setup.rules.count.counted("rule")
        return Self(.leftOut, "setup", "\(rules): there is no set-up phase there: it is written as the lock leaves it")
    }
}
