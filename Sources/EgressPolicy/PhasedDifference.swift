public import NetPrimitives

/// What differs between two policies of which either may have a set-up phase: as they are until the lock, and as the lock
/// leaves them.
///
///     old, in set-up ──▶ new, in set-up ──┐
///                                         ├─▶ opened, closed: of both, each entry once
///     old, locked ─────▶ new, locked ─────┘
///     new, in set-up ──▶ new, locked ───────▶ what the lock takes away
public struct PhasedDifference: Hashable, Sendable {
    /// When an entry holds.
    public enum Phase: Hashable, Sendable {
        /// Whether there was a lock or not.
        case always
        /// In set-up alone.
        case untilLock
        /// Once locked.
        case afterLock
    }

    /// One difference, and when it is one.
    public struct Entry: Hashable, Sendable, CustomStringConvertible {
        /// What differs.
        public let entry: PolicyDifference.Entry
        /// When.
        public let phase: Phase

        /// `tcp 443 *.example.com (until the lock)`.
        public var description: String {
            switch phase {
            case .always: "\(entry)"
            case .untilLock: "\(entry) (until the lock)"
            case .afterLock: "\(entry) (after the lock)"
            }
        }
    }

    /// What becomes reachable.
    public let opened: [Entry]
    /// What stops being reachable.
    public let closed: [Entry]
    /// What of the new policy stops being reachable with the lock. Empty where it has no phase.
    public let stopsAtLock: [PolicyDifference.Entry]

    /// Whether there is no difference between the policies, in set-up or locked.
    public var isEmpty: Bool { opened.isEmpty && closed.isEmpty }

    /// Compares two policies as they are at `time`.
    public init(from old: CompiledPolicy, to new: CompiledPolicy, at time: WallTime) {
        let now = PolicyDifference(from: old, to: new, at: time)
        guard old.policy.setup != nil || new.policy.setup != nil else {
            opened = now.opened.map { Entry(entry: $0, phase: .always) }
            closed = now.closed.map { Entry(entry: $0, phase: .always) }
            stopsAtLock = []
            return
        }
        let later = PolicyDifference(from: old.locked(), to: new.locked(), at: time)
        opened = Self.joined(now.opened, later.opened)
        closed = Self.joined(now.closed, later.closed)
        stopsAtLock = PolicyDifference(from: new, to: new.locked(), at: time).closed
    }

    private static func joined(_ now: [PolicyDifference.Entry], _ later: [PolicyDifference.Entry]) -> [Entry] {
        let (inSetup, locked) = (Set(now), Set(later))
        return now.map { Entry(entry: $0, phase: locked.contains($0) ? .always : .untilLock) }
            + later.filter { !inSetup.contains($0) }.map { Entry(entry: $0, phase: .afterLock) }
    }
}
