public import EgressPolicy
public import NetPrimitives
public import PolicyDocument

/// What a node knows of a sandbox and keeps on disk: what was asked for, and what has become of it.
public struct SandboxRecord: Hashable, Sendable {
    /// Where a sandbox is in its life, in the words of OpenSandbox's lifecycle API.
    public enum State: String, Hashable, Sendable, CaseIterable {
        /// Being put under enforcement: the door is closed.
        case pending = "Pending"
        /// Its policy is in force.
        case running = "Running"
        /// Everything is denied until it is resumed.
        case paused = "Paused"
        /// Its time is over: everything is denied until it is deleted.
        case terminated = "Terminated"
        /// It could not be put under enforcement, or taken up again: everything is denied until it is deleted.
        case failed = "Failed"
    }

    /// Its name.
    public let id: String
    /// Which namespace was asked for.
    public let attachment: CreateRequest.Attachment
    /// The TCP ports on which connections from outside are let in.
    public let inbound: [PortRange]
    /// Whether the caller accepted that processes in the namespace could get around the rules.
    public let acceptsRawSockets: Bool
    /// Whether the caller accepted what in the namespace could take packets past the rules.
    public let acceptsSidePaths: Bool
    /// How sockets to the outside are opened in its own network; `nil` when they are opened in the node's.
    public let upstreamInside: CreateRequest.UpstreamInside?
    /// Whether somebody is asked about what no rule speaks of, and for how long; `nil` when nobody is.
    public let ask: CreateRequest.Asking?
    /// The namespace; `nil` until it was found or made.
    public var namespace: NamespaceReference?
    /// Its own policy; `nil` when the node's default applies.
    public var policy: Policy?
    /// Counts the policies; records carry it.
    public var revision: UInt64 = 1
    /// Words of the caller's.
    public let metadata: [String: String]
    /// When it was asked for.
    public let createdAt: WallTime
    /// When its time is over; `nil` for never.
    public var expiresAt: WallTime?
    /// Since when there is no set-up phase any more, and none can begin; `nil` until the sandbox is locked.
    public private(set) var lockedAt: WallTime?
    /// Where it is in its life.
    public private(set) var state: State = .pending
    /// Why it is in this state, in a word for programs; empty when that goes without saying.
    public private(set) var reason = ""
    /// The same, in a sentence for people.
    public private(set) var message = ""
    /// When it came into this state.
    public private(set) var lastTransitionAt: WallTime

    /// What is known of a sandbox when it is asked for.
    init(_ request: CreateRequest, id: String, now: WallTime) {
        self.id = id
        attachment = request.attachment
        inbound = request.inbound ?? (request.attachment == .create ? [] : [.all])
        acceptsRawSockets = request.acceptsRawSockets
        acceptsSidePaths = request.acceptsSidePaths
        upstreamInside = request.upstreamInside
        ask = request.ask
        policy = request.policy
        metadata = request.metadata
        expiresAt = request.expiresAt
        createdAt = now
        lastTransitionAt = now
    }

    /// Takes the set-up phase away for good.
    mutating func lock(at time: WallTime) {
        lockedAt = time
        guard policy?.setup != nil else { return }
        policy = policy?.locked
        revision += 1
    }

    /// Whether asking for `wanted` asks for the policy that there is. A phase's end counts from each request, so that it is
    /// not compared; and whoever asks again for a phase that is over gets what it left.
    func answers(_ wanted: Policy?) -> Bool {
        if lockedAt != nil { return wanted?.locked == policy }
        return wanted?.locked == policy?.locked && wanted?.setup?.rules == policy?.setup?.rules
    }

    /// Enters a state.
    mutating func enter(_ state: State, reason: String = "", message: String = "", at time: WallTime) {
        self.state = state
        self.reason = reason
        self.message = message
        lastTransitionAt = time
    }
}

/// A network namespace that is found again after a restart, and not mistaken for another one.
public struct NamespaceReference: Hashable, Sendable {
    /// Where it is opened.
    public let path: String
    /// Its number, by which the kernel tells it from all others that exist.
    public let inode: UInt64
    /// The kernel's word for the time since it was started; numbers are used again after that.
    public let bootID: String

    /// A reference from its parts.
    public init(path: String, inode: UInt64, bootID: String) {
        self.path = path
        self.inode = inode
        self.bootID = bootID
    }
}
