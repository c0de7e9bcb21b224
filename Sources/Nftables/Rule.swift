import NetPrimitives

/// A rule of a chain.
struct Rule: Hashable, Sendable {
    /// The rule as a human would type it for nft(8). Tests load these lines with nft and compare what the kernel has.
    let line: String
    /// The same rule, step by step.
    let expressions: [Expression]

    /// A rule from its line and the conditions and statements that the line consists of, in their order.
    init(_ line: String, _ parts: [Expression]...) {
        self.line = line
        self.expressions = parts.flatMap { $0 }
    }
}

/// A chain on a hook of the kernel (base chain), or one that rules go to.
struct Chain: Hashable, Sendable {
    /// Where a base chain is attached.
    struct Attachment: Hashable, Sendable {
        enum Kind: String { case filter, nat }

        /// NF_INET_…, and one of NF_NETDEV_… (linux/netfilter.h).
        enum Hook { case input, forward, output, postrouting, egress }

        let kind: Kind
        let hook: Hook
        let priority: Int32
        /// What becomes of a packet that no rule decided on.
        let policy: Expression.Verdict
        /// The device, for a hook that is a device's.
        var device: String?
    }

    let name: String
    /// `nil` for a chain that is on no hook.
    let attachment: Attachment?
}

extension Chain.Attachment.Hook: CustomStringConvertible {
    /// The hook's name for nft(8).
    var description: String {
        switch self {
        case .input: "input"
        case .forward: "forward"
        case .output: "output"
        case .postrouting: "postrouting"
        case .egress: "egress"
        }
    }

    /// The hook's number in its family.
    var number: UInt32 {
        switch self {
        case .input, .egress: 1
        case .forward: 2
        case .output: 3
        case .postrouting: 4
        }
    }
}

/// A set that rules look addresses or ports up in.
struct LookupSet: Hashable, Sendable {
    /// What the elements are.
    enum Key: Hashable, Sendable {
        case address(IPAddress.Family)
        case port
        /// A packet's priority (SO_PRIORITY, socket(7)).
        case priority

        /// In bytes.
        var length: Int {
            switch self {
            case .address(.v4): 4
            case .address(.v6): 16
            case .port: 2
            case .priority: 4
            }
        }
    }

    let name: String
    let key: Key
    /// Whether elements are intervals; otherwise they are single ones that expire.
    let isInterval: Bool
    /// Whether rules add elements (``Expression/remember(set:milliseconds:)``).
    var isDynamic = false
}
