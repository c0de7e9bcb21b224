import CNftnl
import Glibc
public import NetPrimitives

/// The table `inet sandgate` of one sandbox's network namespace. Confined to the thread that owns its socket.
///
/// The order of installation is ``closeDoor()``, then the listeners, then ``installRedirects()``. Every change is one
/// batch, acknowledged before the call returns; when it throws, nothing of it is in force. Base chains and sets are
/// made once and never deleted, which is what keeps a change from letting a packet through.
///
/// The table belongs to the socket (`owner`): nobody else can change it, root in the namespace included. It outlives
/// the socket (`persist`) and goes on refusing. Before Linux 6.9, which brought `persist`, it has neither flag: it goes on
/// refusing all the same, and is safe from those who have no CAP_NET_ADMIN over the namespace, as in `run`.
public final class SandboxTable {
    /// How often a set is listed that goes on changing.
    private static let maximumListings = 20

    let netlink: NetlinkSocket
    private let ruleset: SandboxRuleset
    /// What a process after this one is to know, and nobody in the namespace can change: a line each, of at most 200 bytes.
    private let notes: [String]
    /// Whether the table is made with an owner. Kernels that know `persist` also know how to destroy elements.
    private var isOwned: Bool
    /// What the interval sets hold; `nil` when a change failed and nobody knows.
    private var possible: IntervalSet? = IntervalSet([])
    private var possibleUDP: IntervalSet? = IntervalSet([])
    private var ports: [LookupSet: [PortRange]] = [:]

    /// A table that is not in the kernel yet. `netlink` was opened in the sandbox's namespace; what is refused goes to
    /// NFLOG group `nflogGroup` there. `gateways` are routers that neighbour discovery may address directly, and `onLink`
    /// the prefixes of its links, whose addresses it may. `upstream` is what our own sockets have, where they are in the same
    /// namespace; with `asksDocker` they may ask Docker's resolver there. `fence` is what an ``EgressFence`` looks for.
    /// `notes` stay in the table for who reads ``notes(_:)`` after this process.
    public init(
        netlink: NetlinkSocket,
        ports: ListenerPorts,
        nflogGroup: UInt16,
        refusalLimit: RefusalLimit = .init(),
        gateways: [IPAddress] = [],
        onLink: [IPPrefix] = [],
        upstream: UpstreamPass? = nil,
        asksDocker: Bool = false,
        fence: UpstreamPass? = nil,
        notes: [String] = []
    ) {
        self.netlink = netlink
        self.notes = notes
        self.isOwned = true
        self.ruleset = SandboxRuleset(
            ports: ports,
            nflogGroup: nflogGroup,
            refusalLimit: refusalLimit,
            gateways: gateways,
            onLink: onLink,
            upstream: upstream,
            asksDocker: asksDocker,
            fence: fence
        )
    }

    /// Whether the table has an owner, once it is made.
    public var hasOwner: Bool { isOwned }

    /// Goes the way of kernels before 6.9, for tests on newer ones.
    func giveUpOwnership() {
        isOwned = false
    }

    private var table: String { SandboxRuleset.table }
}

// MARK: - The door

extension SandboxTable {
    /// Makes the table. Until ``installRedirects()`` nothing leaves, and nothing is reached but what listens on
    /// loopback. Throws EEXIST when the namespace has such a table already.
    public func closeDoor() throws(NetlinkError) {
        do {
            try makeTable()
        } catch  where error.errno == EOPNOTSUPP && error.messageIndex == 0 && isOwned {
            isOwned = false
            try makeTable()
        }
    }

    private func makeTable() throws(NetlinkError) {
        let survey = try survey()
        var batch = Batch()
        batch.createTable(table, isOwned: isOwned)
        for set in ruleset.sets { batch.create(set, table: table) }
        for chain in ruleset.chains { batch.create(chain, table: table) }
        for chain in ruleset.chains {
            for rule in ruleset.rules(of: chain, door: .closed) { batch.add(rule, to: chain, table: table) }
        }
        batch.create(SandboxRuleset.others, table: table)
        batch.add(comment: survey.digest, to: SandboxRuleset.others, table: table)
        addNotes(to: &batch)
        try netlink.commit(batch)
    }

    private func addNotes(to batch: inout Batch) {
        guard !notes.isEmpty else { return }
        // A table of a version before has no such chain.
        batch.create(SandboxRuleset.noted, table: table, mayExist: true)
        batch.flush(SandboxRuleset.noted, table: table)
        for note in notes { batch.add(comment: note, to: SandboxRuleset.noted, table: table) }
    }

    /// What a process before this one noted in the namespace that `netlink` was opened in; nothing where there was none.
    public static func notes(_ netlink: NetlinkSocket) throws(NetlinkError) -> [String] {
        try RulesetSurvey.comments(
            netlink,
            family: UInt8(NFPROTO_INET),
            table: SandboxRuleset.table,
            chain: SandboxRuleset.noted
        )
    }

    private func survey() throws(NetlinkError) -> RulesetSurvey {
        var ours = [(family: UInt8(NFPROTO_INET), name: table)]
        // A table of this name is somebody else's where we have none.
        if ruleset.fence != nil { ours.append((UInt8(NFPROTO_NETDEV), table)) }
        return try RulesetSurvey.make(netlink, ours: ours, record: SandboxRuleset.others)
    }

    /// After ``adopt()``: whether the rest of the namespace's ruleset is not what it was when the table was made, or
    /// ``recordOthers()`` was called. While nobody watched, somebody may have changed it.
    public func changeOfOthers() throws(NetlinkError) -> RulesetChange? {
        let survey = try survey()
        guard survey.digest != survey.recorded else { return nil }
        return RulesetChange("while nobody watched, the ruleset beside table inet \(table) was changed")
    }

    /// After ``adopt()``: takes the rest of the namespace's ruleset for what it should be.
    public func recordOthers() throws(NetlinkError) {
        let survey = try survey()
        var batch = Batch()
        batch.flush(SandboxRuleset.others, table: table)
        batch.add(comment: survey.digest, to: SandboxRuleset.others, table: table)
        try netlink.commit(batch)
    }

    /// Whether the namespace has a table of this name, whoever made it.
    public func isThere() throws(NetlinkError) -> Bool {
        let object = nftnl_table_alloc()
        defer { nftnl_table_free(object) }
        nftnl_table_set_str(object, UInt16(NFTNL_TABLE_NAME.rawValue), table)
        let question = RulesetQuestion.make(NFT_MSG_GETTABLE, family: UInt16(NFPROTO_INET)) {
            nftnl_table_nlmsg_build_payload($0, object)
        }
        do {
            try netlink.request(question, operation: "look for table \(table)")
            return true
        } catch  where error.errno == ENOENT {
            return false
        }
    }

    /// Takes over the table that a process before this one left in the namespace, and closes its door: rules are
    /// replaced in kept chains, so nothing passes meanwhile that passed neither before nor after. Pins stay. Throws
    /// ENOENT when there is none of this version's shape, and EPERM when another process has it.
    ///
    /// `keepingDoorOpen` is for whoever has that process's listeners: what programs send waits in them, where a closed
    /// door would answer with resets, and so end connections that could go on.
    public func adopt(keepingDoorOpen: Bool = false) throws(NetlinkError) {
        let door: SandboxRuleset.Door = keepingDoorOpen ? .open : .closed
        do {
            try adoptTable(door)
        } catch  where error.errno == EOPNOTSUPP && error.messageIndex == 0 && isOwned {
            isOwned = false
            try adoptTable(door)
        }
        // What the interval sets hold is somebody else's doing: the next change replaces all of it.
        possible = nil
        possibleUDP = nil
        ports = [:]
    }

    private func adoptTable(_ door: SandboxRuleset.Door) throws(NetlinkError) {
        var batch = Batch()
        batch.adoptTable(table, isOwned: isOwned)
        // A table of a version before has no such set. There is nothing in it that a packet could miss.
        if ruleset.sets.contains(SandboxRuleset.guesses) {
            batch.create(SandboxRuleset.guesses, table: table, mayExist: true)
        }
        for chain in ruleset.chains {
            batch.flush(chain, table: table)
            for rule in ruleset.rules(of: chain, door: door) { batch.add(rule, to: chain, table: table) }
        }
        addNotes(to: &batch)
        try netlink.commit(batch)
    }

    /// Opens the door: DNS, TCP to pinned and possible addresses, and the datagrams that ``setDatagrams`` speaks of reach
    /// our listeners from now on.
    public func installRedirects() throws(NetlinkError) {
        try set(.open)
    }

    /// Closes the door. Pins and possible addresses stay as they are and can be changed meanwhile; connections that
    /// were redirected before are refused too.
    public func pause() throws(NetlinkError) {
        try set(.closed)
    }

    /// Opens the door again.
    public func resume() throws(NetlinkError) {
        try set(.open)
    }

    /// Has connection tracking forget every flow of the namespace, those that nobody's packet began included: an entry that
    /// somebody made by hand, with the mark of connections from outside, would let out what looks like its answers.
    public func forgetFlows() throws(NetlinkError) {
        try netlink.request(Conntrack.forgetAll, operation: "have connection tracking forget what there is")
    }

    /// Deletes the table: nothing is enforced any more. For a namespace that goes on without us.
    public func delete() throws(NetlinkError) {
        var batch = Batch()
        batch.deleteTable(table)
        try netlink.commit(batch)
    }

    /// Rules replaced in kept chains, in one batch: no packet sees a mixture, none passes that neither would let pass.
    private func set(_ door: SandboxRuleset.Door) throws(NetlinkError) {
        var batch = Batch()
        for chain in SandboxRuleset.guarded {
            batch.flush(chain, table: table)
            for rule in ruleset.rules(of: chain, door: door) { batch.add(rule, to: chain, table: table) }
        }
        try netlink.commit(batch)
    }
}

// MARK: - Elements

extension SandboxTable {
    /// Admits addresses, each for a number of seconds (at least 1) and for a name; what is pinned already gets the new
    /// expiry and name. Returns when the kernel has all of them; throws when it has none of them.
    ///
    /// An element that is added again keeps its comment whatever is sent, so the old one goes in the same batch: no
    /// lookup misses it meanwhile, it costs no more than the addition alone, and nothing need be remembered here.
    public func pin(_ pins: [(IPAddress, timeoutSeconds: UInt32, name: DomainName)]) throws(NetlinkError) {
        var batch = Batch()
        for (address, seconds, name) in pins {
            let set = SandboxRuleset.pinned(address.family)
            batch.destroy(address, in: set, table: table, kernelDestroys: isOwned)
            // Without a timeout an element would stay for ever.
            batch.add(address, to: set, table: table, milliseconds: UInt64(max(seconds, 1)) * 1_000, name: name)
        }
        try netlink.commit(batch)
    }

    /// What is pinned, as the kernel has it.
    public func pins() throws(NetlinkError) -> [KernelPin] {
        try pins(.v4) + pins(.v6)
    }

    /// A set that has grown is rearranged behind a listing of several datagrams, which then misses some elements and tells of
    /// others twice (rhashtable_walk_enter, lib/rhashtable.c): it is asked for until one is whole and has nothing new. One
    /// datagram is one walk, which misses none.
    private func pins(_ family: IPAddress.Family) throws(NetlinkError) -> [KernelPin] {
        let set = SandboxRuleset.pinned(family)
        let question = KernelPin.question(set, table: table)
        var pins: [IPAddress: KernelPin] = [:]
        for _ in 0..<Self.maximumListings {
            let messages = try netlink.dump(question, operation: "list set \(set.name)")
            let listing = messages.flatMap { KernelPin.read($0, family) }
            let known = pins.count
            for pin in listing { pins[pin.address] = pin }
            if messages.count <= 1 { break }
            if pins.count == known && Set(listing.map(\.address)).count == listing.count { break }
        }
        return Array(pins.values)
    }

    /// Takes addresses back. They may have expired, or never have been pinned. Where they are too many for one datagram
    /// (without root, some thousand), some of them may be gone when it throws.
    public func unpin(_ addresses: [IPAddress]) throws(NetlinkError) {
        var batch = Batch()
        for address in addresses {
            try commitIfFull(&batch)
            let set = SandboxRuleset.pinned(address.family)
            batch.destroy(address, in: set, table: table, kernelDestroys: isOwned)
        }
        try netlink.commit(batch)
    }

    /// Says which addresses a rule may allow whatever the name; neither end of an interval may be of another family
    /// than the other. Only what differs from before is changed, in one batch.
    ///
    /// A change that is too large for one datagram (without root, some thousand intervals) first takes away everything
    /// that goes, then adds, so that what is refused meanwhile is too much and never too little.
    public func setPossible(_ intervals: [ClosedRange<IPAddress>]) throws(NetlinkError) {
        let wanted = IntervalSet(intervals)
        let installed = possible
        possible = nil
        try change(installed, to: wanted, in: SandboxRuleset.possible)
        possible = wanted
    }

    /// Says which datagrams reach the relay: those to pinned addresses on ports of `pinnedPorts`, and those to
    /// `intervals` on ports of `possiblePorts`. None until this is called. Ranges neither overlap nor touch. In the
    /// middle of a change more or less may reach it than before or after; it judges all of them.
    public func setDatagrams(
        pinnedPorts: [PortRange],
        possiblePorts: [PortRange],
        _ intervals: [ClosedRange<IPAddress>]
    ) throws(NetlinkError) {
        let wanted = IntervalSet(intervals)
        let installed = possibleUDP
        possibleUDP = nil
        try change(installed, to: wanted, in: SandboxRuleset.possibleUDP)
        possibleUDP = wanted
        try setPorts(SandboxRuleset.pinnedPorts, to: pinnedPorts)
        try setPorts(SandboxRuleset.possiblePorts, to: possiblePorts)
    }

    /// Says on which TCP ports connections from outside are let in, while the door is open. None until this is called.
    /// Ranges neither overlap nor touch.
    public func setServedPorts(_ ranges: [PortRange]) throws(NetlinkError) {
        try setPorts(SandboxRuleset.servedPorts, to: ranges)
    }

    private func setPorts(_ set: LookupSet, to wanted: [PortRange]) throws(NetlinkError) {
        guard ports[set] != wanted else { return }
        ports[set] = nil
        var batch = Batch()
        batch.flush(set, table: table)
        for range in wanted {
            try commitIfFull(&batch)
            batch.add(range, to: set, table: table)
        }
        try netlink.commit(batch)
        ports[set] = wanted
    }

    private func change(
        _ installed: IntervalSet?,
        to wanted: IntervalSet,
        in set: (IPAddress.Family) -> LookupSet
    ) throws(NetlinkError) {
        var pending = Batch()
        if installed == nil {
            pending.flush(set(.v4), table: table)
            pending.flush(set(.v6), table: table)
        }
        let (gone, new) = (installed ?? IntervalSet([])).changes(to: wanted)
        for interval in gone {
            try commitIfFull(&pending)
            pending.delete(interval, from: set(interval.lowerBound.family), table: table)
        }
        for interval in new {
            try commitIfFull(&pending)
            pending.add(interval, to: set(interval.lowerBound.family), table: table)
        }
        try netlink.commit(pending)
    }

    private func commitIfFull(_ batch: inout Batch) throws(NetlinkError) {
        guard batch.bytes.count > netlink.longestDatagram - 1_024 else { return }
        try netlink.commit(batch)
        batch = Batch()
    }
}
