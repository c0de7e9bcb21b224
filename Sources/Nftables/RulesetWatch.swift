import CNftnl
import Glibc

/// That somebody else changed the nftables ruleset of a sandbox's network namespace: what enforcement stands on is not
/// what it was.
public struct RulesetChange: Error, Hashable, Sendable {
    /// What was changed, in words: `table ip nat was added`. Names in it are the other process's choice.
    public let what: String
    /// Who did it, where the kernel told: the process in the first PID namespace, and the name it gives itself.
    public var process: (id: UInt32, name: String)? {
        processID.map { ($0, processName) }
    }

    private var processID: UInt32?
    private var processName = ""

    /// A change that nobody is known to have made.
    public init(_ what: String) {
        self.what = what
    }

    fileprivate mutating func credit(_ process: UInt32, _ name: String) {
        processID = process
        processName = name
    }
}

extension RulesetChange: CustomStringConvertible {
    /// One clause: `table ip nat was added by process 812 (nft)`.
    public var description: String {
        process.map { "\(what) by process \($0.id) (\($0.name))" } ?? what
    }
}

/// Notices when somebody else changes the ruleset of a network namespace. Confined to the thread of its sockets.
///
/// The kernel tells a netlink group of every change (NFNLGRP_NFTABLES) with the port of the socket that asked for it.
/// Those of our own sockets are dropped before they are queued, so that watching costs nothing but the kernel's making
/// of them. Where messages were lost, the number of the ruleset's generation says whether there were others than ours:
/// every batch that changes something makes it one more, whoever sends it. Of ours that only take away it is not known
/// whether they did: after a loss as many of others' could hide among them.
final class RulesetWatch {
    private let reports: NetlinkSocket
    private var trusted: [NetlinkSocket]
    /// The generation, less what the trusted sockets have made of it.
    private let baseline: UInt32

    private static let types = UInt16(NFNL_SUBSYS_NFTABLES) << 8

    /// Watches the namespace that all of these sockets were opened in: what is told arrives at `reports`; `trusted` is
    /// the one that makes our changes, and has made none that is not known to be in force.
    init(reports: NetlinkSocket, trusted: NetlinkSocket) throws(NetlinkError) {
        self.reports = reports
        self.trusted = [trusted]
        // Filtered before anything can arrive, and joined before the generation is asked for: nothing is missed between.
        try reports.filter(by: Self.program(dropping: [trusted.portID]))
        try reports.join(group: UInt32(NFNLGRP_NFTABLES.rawValue))
        baseline = try Self.generation(trusted) &- trusted.commitCount
    }

    /// Lets another socket of ours make changes. It has made none yet.
    func trust(_ socket: NetlinkSocket) throws(NetlinkError) {
        trusted.append(socket)
        try reports.filter(by: Self.program(dropping: trusted.map(\.portID)))
    }

    /// Whether a batch that is not ours was put in force since the watch began; `nil` when there was none. What cannot be
    /// found out counts as a change.
    func compare() -> RulesetChange? {
        guard let socket = trusted.first else { return nil }
        do {
            let ours = trusted.reduce(0) { $0 &+ $1.commitCount }
            let uncertain = trusted.reduce(0) { $0 &+ $1.uncertainCommitCount }
            let idle = trusted.reduce(0) { $0 &+ $1.idleCommitCount }
            // From as many as ours can be at least.
            let others = try Self.generation(socket) &- (baseline &+ ours &- idle)
            return others <= idle &+ uncertain ? nil : RulesetChange("the ruleset was changed, and it was not seen how")
        } catch {
            return RulesetChange("whether the ruleset was changed could not be found out (\(error))")
        }
    }

    /// NFT_MSG_GETGEN.
    private static func generation(_ socket: NetlinkSocket) throws(NetlinkError) -> UInt32 {
        let operation = "ask for the ruleset's generation"
        let type = types | UInt16(NFT_MSG_NEWGEN.rawValue)
        let question = RulesetQuestion.make(NFT_MSG_GETGEN)
        for message in try socket.query(question, operation: operation) where message.header.nlmsg_type == type {
            for attribute in NetlinkAttributes(message.payload.dropFirst(MemoryLayout<nfgenmsg>.size))
            where attribute.type == Int(NFTA_GEN_ID.rawValue) {
                if let generation = attribute.bigEndian32 { return generation }
            }
        }
        throw NetlinkError(operation: operation, errno: EPROTO)
    }

    /// Drops what the kernel tells of changes that sockets with these ports asked for, and accepts everything else. All
    /// messages of a datagram are of one batch, so that the first one speaks for them.
    private static func program(dropping ports: [UInt32]) -> [sock_filter] {
        // Loads are in network order, a netlink header is in the machine's.
        func load(_ size: Int32, _ offset: UInt32) -> sock_filter {
            sock_filter(code: UInt16(BPF_LD | size | BPF_ABS), jt: 0, jf: 0, k: offset)
        }
        func jumpIfEqual(_ value: UInt32, over count: Int, else other: Int) -> sock_filter {
            sock_filter(code: UInt16(BPF_JMP | BPF_JEQ | BPF_K), jt: UInt8(count), jf: UInt8(other), k: value)
        }
        func end(keeping length: UInt32) -> sock_filter {
            sock_filter(code: UInt16(BPF_RET | BPF_K), jt: 0, jf: 0, k: length)
        }
        let subsystem = UInt32(UInt16(0xff00).bigEndian)
        let nftables = UInt32(types.bigEndian)
        var program = [
            load(BPF_H, UInt32(MemoryLayout<nlmsghdr>.offset(of: \.nlmsg_type)!)),
            sock_filter(code: UInt16(BPF_ALU | BPF_AND | BPF_K), jt: 0, jf: 0, k: subsystem),
            jumpIfEqual(nftables, over: 0, else: ports.count + 1),
            load(BPF_W, UInt32(MemoryLayout<nlmsghdr>.offset(of: \.nlmsg_pid)!)),
        ]
        for (number, port) in ports.enumerated() {
            program.append(jumpIfEqual(port.bigEndian, over: ports.count - number, else: 0))
        }
        return program + [end(keeping: .max), end(keeping: 0)]
    }
}

// MARK: - What is told

extension RulesetWatch {
    /// What a message tells of somebody else's change, added to what is known of it. `nil` for a message of another kind.
    static func read(_ message: NetlinkMessage, adding to: RulesetChange?) -> RulesetChange? {
        let header = message.header
        // What the kernel does by itself, as when a device goes, has port 0.
        guard header.nlmsg_type & 0xff00 == types, header.nlmsg_pid != 0 else { return to }
        let attributes = NetlinkAttributes(message.payload.dropFirst(MemoryLayout<nfgenmsg>.size))
        let kind = nf_tables_msg_types(UInt32(header.nlmsg_type & 0xff))
        guard kind != NFT_MSG_NEWGEN else {
            var change = to ?? RulesetChange("the ruleset was changed")
            let process = attributes.first { $0.type == Int(NFTA_GEN_PROC_PID.rawValue) }?.bigEndian32
            let name = attributes.first { $0.type == Int(NFTA_GEN_PROC_NAME.rawValue) }?.text
            if change.process == nil, let process { change.credit(process, name ?? "?") }
            return change
        }
        // The first thing of a batch is enough to say.
        if let to { return to }
        let family = message.payload.first.map(RulesetSurvey.family) ?? "?"
        // In every kind of message the first attribute is the table's name, and in those of a chain's, set's or rule's
        // the second is its own or its chain's.
        let table = attributes.first { $0.type == 1 }?.text ?? "?"
        return RulesetChange("\(words(for: kind)) table \(family) \(table)\(ending(for: kind))")
    }

    private static func words(for kind: nf_tables_msg_types) -> String {
        switch kind {
        case NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE: "the"
        case NFT_MSG_NEWCHAIN: "a chain was added to or changed in"
        case NFT_MSG_DELCHAIN: "a chain was removed from"
        case NFT_MSG_NEWRULE: "a rule was added to"
        case NFT_MSG_DELRULE: "a rule was removed from"
        case NFT_MSG_NEWSET: "a set was added to"
        case NFT_MSG_DELSET: "a set was removed from"
        case NFT_MSG_NEWSETELEM: "elements were added to a set of"
        case NFT_MSG_DELSETELEM: "elements were removed from a set of"
        default: "something was changed in"
        }
    }

    private static func ending(for kind: nf_tables_msg_types) -> String {
        switch kind {
        case NFT_MSG_NEWTABLE: " was added or changed"
        case NFT_MSG_DELTABLE: " was removed"
        default: ""
        }
    }
}
