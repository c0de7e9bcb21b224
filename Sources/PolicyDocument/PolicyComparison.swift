public import EgressPolicy
public import NetPrimitives

/// A question for the difference between two policies: `{"old": …, "new": …}`, or `{"sandbox": ID, "new": …}`.
public struct PolicyComparison: Hashable, Sendable {
    /// The policy that is compared; without one, everything is denied.
    public let old: Policy
    /// The policy that it is compared with.
    public let new: Policy
    /// In place of `old`: the policy that is in force for this sandbox.
    public let sandbox: String?
}

extension PolicyComparison {
    /// Reads a question. The error holds all problems.
    public static func load(bytes: [UInt8], file: String, now: WallTime) throws(DocumentError) -> PolicyComparison {
        let root = try PolicyDocument.tree(bytes, .json, file)
        var reader = PolicyReader(file: file, now: now)
        var (old, new): (Policy?, Policy?) = (nil, nil)
        var sandbox: String?
        if let root, let members = reader.members(of: root, "", allowed: ["old", "new", "sandbox"]) {
            for member in members {
                switch member.key {
                case "old": old = reader.readPolicy(member.value, member.key)
                case "new": new = reader.readPolicy(member.value, member.key)
                default: sandbox = reader.text(member.value, member.key)
                }
            }
            if new == nil { reader.report(root.position, "new", "missing") }
            if old != nil, sandbox != nil {
                reader.report(root.position, "sandbox", "stands beside old: only one of them is accepted")
            }
        } else if root == nil {
            reader.report(.init(), "new", "missing")
        }
        try PolicyDocument.refuse(reader.problems)
        return PolicyComparison(old: old ?? Policy(), new: new ?? Policy(), sandbox: sandbox)
    }
}
