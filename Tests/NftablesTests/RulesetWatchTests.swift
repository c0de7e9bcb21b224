import Glibc
import NetPrimitives
import Testing

@testable import Nftables

/// That somebody else changes the ruleset is noticed, whoever does it and whatever was lost on the way; what we change
/// ourselves is not.
@Suite struct RulesetWatchTests {
    private let address = IPAddress("192.0.2.1")!
    private let name = try! DomainName("one.example")

    private struct Guarded {
        let table: SandboxTable
        let log: RefusalLog

        /// What was noticed so far.
        func change() throws -> RulesetChange? {
            while try !log.read().isEmpty {}
            return log.takeRulesetChange()
        }
    }

    private func make() throws -> Guarded {
        let netlink = try NetlinkSocket()
        let log = try RefusalLog(socket: try NetlinkSocket(), group: 5, trusted: netlink)
        let table = SandboxTable(
            netlink: netlink,
            ports: ListenerPorts(dns: 1053, proxy: 1080, datagrams: 1082),
            nflogGroup: 5
        )
        try table.closeDoor()
        return Guarded(table: table, log: log)
    }

    private func useEverything(_ table: SandboxTable) throws {
        try table.installRedirects()
        try table.setPossible([address...address])
        try table.setDatagrams(pinnedPorts: [PortRange(53)!], possiblePorts: [], [])
        try table.pin([(address, timeoutSeconds: 60, name: name)])
        try table.unpin([address])
        try table.pause()
        try table.resume()
    }

    @Test func ourOwnChangesAreNone() throws {
        try inNamespace {
            let guarded = try make()
            try useEverything(guarded.table)
            // A batch that fails is not in force either.
            #expect(throws: NetlinkError.self) { try guarded.table.closeDoor() }
            #expect(try guarded.change() == nil)
        }
    }

    @Test(arguments: [
        ("nft add table ip nat", "the table ip nat was added or changed"),
        ("nft add table netdev sandgate", "the table netdev sandgate was added or changed"),
        ("nft add chain ip before c", "a chain was added to or changed in table ip before"),
        ("nft add rule ip before c0 accept", "a rule was added to table ip before"),
        ("nft flush chain ip before c0", "a rule was removed from table ip before"),
        ("nft add element ip before s { 192.0.2.9 }", "elements were added to a set of table ip before"),
        ("nft delete table ip before", "the table ip before was removed"),
        ("nft flush ruleset", "the table ip before was removed"),
    ]) func othersAreNoticed(_ command: String, _ words: String) throws {
        try inNamespace {
            try shell(
                "nft 'table ip before { set s { type ipv4_addr; }; chain c0 { counter; }; }'"
            )
            let guarded = try make()
            #expect(try guarded.change() == nil)
            try shell(command)
            let change = try guarded.change()
            #expect(change?.what.contains(words.split(separator: " ").last!) == true, "\(String(describing: change))")
            #expect(change?.process?.name == "nft")
            #expect(try guarded.change() == nil)
        }
    }

    /// The messages themselves are lost: the number of the generation tells.
    @Test func whatWasLostIsNoticed() throws {
        try inNamespace {
            let netlink = try NetlinkSocket()
            let watch = try RulesetWatch(reports: try NetlinkSocket(), trusted: netlink)
            let table = SandboxTable(
                netlink: netlink,
                ports: ListenerPorts(dns: 1053, proxy: 1080, datagrams: 1082),
                nflogGroup: 5
            )
            try table.closeDoor()
            try useEverything(table)
            #expect(throws: NetlinkError.self) { try table.closeDoor() }
            #expect(watch.compare() == nil)
            try shell("nft add table ip other; nft delete table ip other")
            #expect(watch.compare() != nil)
        }
    }

    @Test func anotherSocketOfOursIsTrusted() throws {
        try inNamespace {
            let guarded = try make()
            let netlink = try NetlinkSocket()
            try guarded.log.trust(netlink)
            let fence = EgressFence(
                netlink: netlink,
                devices: [("lo", 1)],
                pass: UpstreamPass.random()
            )
            try fence.install()
            #expect(try guarded.change() == nil)
        }
    }

    // MARK: - While nobody watched

    private func adoptAfter(_ command: String) throws -> RulesetChange? {
        try inNamespace {
            try shell("nft 'table ip before { chain c0 { counter; }; }'")
            try { try useEverything(try make().table) }()
            try shell(command)
            let heir = try SandboxTableTests.makeTable()
            try heir.adopt()
            return try heir.changeOfOthers()
        }
    }

    @Test func anHeirFindsTheRestAsItWas() throws {
        #expect(try adoptAfter("true") == nil)
        #expect(try adoptAfter("nft list ruleset") == nil)
    }

    @Test(arguments: [
        "nft add table ip nat", "nft add rule ip before c0 accept", "nft delete table ip before",
        "nft flush chain ip before c0; nft add rule ip before c0 counter",
        "nft add table netdev sandgate", "nft add set ip before s '{ type ipv4_addr; }'",
    ]) func anHeirFindsTheRestChanged(_ command: String) throws {
        #expect(try adoptAfter(command) != nil)
    }

    @Test func whatIsRecordedAnewHolds() throws {
        try inNamespace {
            try { _ = try make() }()
            try shell("nft add table ip nat")
            let heir = try SandboxTableTests.makeTable()
            try heir.adopt()
            try heir.recordOthers()
            #expect(try heir.changeOfOthers() == nil)
        }
    }
}
