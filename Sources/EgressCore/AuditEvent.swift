public import EgressPolicy
public import NetPrimitives

/// One thing worth recording about a sandbox's traffic or life. Sequence numbers and hash chain are the audit log's.
public struct AuditEvent: Hashable, Sendable {
    /// What happened; the raw values are those of the record.
    public enum Kind: String, Hashable, Sendable, CaseIterable {
        /// A query was answered.
        case dnsAllowed = "dns.allowed"
        /// A query was refused.
        case dnsDenied = "dns.denied"
        /// A connection was let through.
        case connectionAllowed = "connection.allowed"
        /// A connection or packet was refused.
        case connectionDenied = "connection.denied"
        /// A connection that was let through has ended.
        case connectionClosed = "connection.closed"
        /// The policy in force changed.
        case policyChanged = "policy.changed"
        /// Enforcement began.
        case sandboxAttached = "sandbox.attached"
        /// Enforcement ended with the sandbox.
        case sandboxDetached = "sandbox.detached"
        /// Everything is denied until resumed.
        case sandboxPaused = "sandbox.paused"
        /// The policy is in force again.
        case sandboxResumed = "sandbox.resumed"
        /// The sandbox's set-up is over: only its policy's own rules hold from now on.
        case sandboxLocked = "sandbox.locked"
        /// The sandbox's time is over.
        case sandboxExpired = "sandbox.expired"
        /// Something no rule speaks of waits, and somebody is asked.
        case questionAsked = "question.asked"
        /// The question was answered; `detail` says what, by whom and from where.
        case questionAnswered = "question.answered"
        /// Nobody answered in time, or it came to nothing; `detail` says so.
        case questionEnded = "question.ended"
        /// Somebody else changed the kernel's rules in the sandbox's network, and everything is denied for good.
        case rulesetChanged = "ruleset.changed"
        /// Records could not be written; `count` says how many.
        case auditLost = "audit.lost"
        /// The process began to serve.
        case daemonStarted = "daemon.started"
        /// The process ends.
        case daemonStopped = "daemon.stopped"
    }

    /// Where a decision was taken; the raw values are those of the record.
    public enum Layer: String, Hashable, Sendable, CaseIterable {
        /// The resolver.
        case dns
        /// A ClientHello's server name.
        case tlsSNI = "tls-sni"
        /// A cleartext HTTP request's host.
        case httpHost = "http-host"
        /// The authority of a CONNECT or of a SOCKS request.
        case connect
        /// The address alone: the kernel's rules, or a connection that carries no name.
        case ip
    }

    /// What happened.
    public var kind: Kind
    /// When.
    public var time: WallTime
    /// The sandbox it happened in.
    public var sandbox: String
    /// Where it was decided.
    public var layer: Layer?
    /// What was decided and why.
    public var verdict: Verdict?
    /// The name as the sandbox gave it, made printable; not necessarily a well-formed one.
    public var host: String?
    /// The destination address.
    public var address: IPAddress?
    /// The destination port.
    public var port: UInt16?
    /// IANA protocol number of the packet or flow.
    public var ipProtocol: UInt8?
    /// The revision of the policy in force.
    public var policyRevision: UInt64?
    /// Bytes relayed from the sandbox.
    public var bytesUp: UInt64?
    /// Bytes relayed to the sandbox.
    public var bytesDown: UInt64?
    /// How long the connection lived, in milliseconds.
    public var durationMilliseconds: UInt64?
    /// How many records were lost, or how many packets an aggregated record stands for.
    public var count: UInt64?
    /// The number of the question that was asked, among the sandbox's.
    public var question: UInt64?
    /// What happened in words, where the rest does not say it.
    public var detail: String?

    /// How many records are lost when this one is: one that tells of a loss takes what it tells of with it.
    public var weightWhenLost: UInt64 { kind == .auditLost ? max(count ?? 1, 1) : 1 }

    /// An event with what every event has; the rest is set by the caller.
    public init(_ kind: Kind, time: WallTime, sandbox: String) {
        self.kind = kind
        self.time = time
        self.sandbox = sandbox
    }
}
