import NetPrimitives
import Testing

@testable import Nftables

@Suite struct PossibleTests {
    private static func range(_ text: String) -> ClosedRange<IPAddress> {
        let bounds = text.split(separator: "-").map { IPAddress(String($0))! }
        return bounds[0]...bounds[bounds.count - 1]
    }

    @Test func changesFromOneToAnother() throws {
        let steps: [[String]] = [
            ["10.0.0.0-10.255.255.255", "192.0.2.7"],
            ["10.0.0.0-10.0.0.255", "10.0.1.1-10.255.255.255", "192.0.2.7"],
            ["0.0.0.0-255.255.255.255", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
            ["0.0.0.0-9.255.255.255", "11.0.0.0-255.255.255.255", "::2-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"],
            ["255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
            ["0.0.0.0", "255.255.255.254-255.255.255.255", "::-::1"],
            [],
            ["2001:db8::-2001:db8::ffff"],
        ]
        try inNamespace {
            let table = try SandboxTableTests.makeTable()
            try table.closeDoor()
            for step in steps {
                let intervals = step.map(Self.range)
                try table.setPossible(intervals)
                let listed = try SetListing.intervals("possible4") + SetListing.intervals("possible6")
                #expect(listed == intervals)
            }
        }
    }

    /// A few boundaries, so that changes meet at the same addresses again and again, the last one included.
    @Test(arguments: [UInt64(1), 2, 3, 4]) func randomChanges(seed: UInt64) throws {
        var random = SplitMix(state: seed)
        try inNamespace {
            let table = try SandboxTableTests.makeTable()
            try table.closeDoor()
            for _ in 0..<100 {
                let intervals = Self.randomIntervals(.v4, using: &random) + Self.randomIntervals(.v6, using: &random)
                try table.setPossible(intervals.shuffled(using: &random))
                let listed = try SetListing.intervals("possible4") + SetListing.intervals("possible6")
                try #require(listed == IntervalSet(intervals).intervals)
            }
        }
    }

    private static func randomIntervals(
        _ family: IPAddress.Family,
        using random: inout SplitMix
    ) -> [ClosedRange<IPAddress>] {
        let highest: UInt128 = family == .v4 ? 0xffff_ffff : .max
        func address() -> IPAddress {
            let small = UInt128(UInt8.random(in: 0...24, using: &random))
            return IPAddress(family: family, value: Bool.random(using: &random) ? small : highest - small)!
        }
        return (0..<Int.random(in: 0...8, using: &random)).map { _ in
            let (left, right) = (address(), address())
            return min(left, right)...max(left, right)
        }
    }

    /// Without root the kernel takes only small datagrams; a large change comes in several then.
    @Test func aChangeInSeveralBatches() throws {
        let odd = (0..<6_000).map { IPAddress(v4: 0x0a00_0000 + 4 * $0)...IPAddress(v4: 0x0a00_0001 + 4 * $0) }
        let even = (0..<6_000).map { IPAddress(v4: 0x0a00_0002 + 4 * $0)...IPAddress(v4: 0x0a00_0002 + 4 * $0) }
        try inNamespace {
            let netlink = try NetlinkSocket(bus: NetlinkSocket.netfilter, bufferSize: 1 << 16)
            let table = SandboxTable(
                netlink: netlink,
                ports: ListenerPorts(dns: 1, proxy: 2, datagrams: 4),
                nflogGroup: 5
            )
            try table.closeDoor()
            try table.setPossible(odd)
            #expect(try SetListing.intervals("possible4") == odd)
            try table.setPossible(even)
            #expect(try SetListing.intervals("possible4") == even)
        }
    }

    /// After a failure nothing is taken for granted.
    @Test func recoversFromAFailedChange() throws {
        try inNamespace {
            let netlink = try NetlinkSocket()
            let table = SandboxTable(
                netlink: netlink,
                ports: ListenerPorts(dns: 1, proxy: 2, datagrams: 4),
                nflogGroup: 5
            )
            try table.closeDoor()
            try table.setPossible([Self.range("10.0.0.0-10.0.0.255")])
            var foreign = Batch()
            foreign.add(Self.range("10.0.1.0-10.0.1.7"), to: SandboxRuleset.possible4, table: SandboxRuleset.table)
            try netlink.commit(foreign)
            let error = #expect(throws: NetlinkError.self) {
                try table.setPossible([Self.range("10.0.0.0-10.0.0.255"), Self.range("10.0.1.4-10.0.1.20")])
            }
            #expect(error?.description.hasPrefix("cannot add 10.0.1.4-10.0.1.20 to set possible4: ") == true)
            #expect(error?.messageIndex == 0)
            try table.setPossible([Self.range("10.0.0.0-10.0.0.255"), Self.range("10.0.1.4-10.0.1.20")])
            let expected = [Self.range("10.0.0.0-10.0.0.255"), Self.range("10.0.1.4-10.0.1.20")]
            #expect(try SetListing.intervals("possible4") == expected)
        }
    }
}

/// A small generator with a seed, so that a failure can be had again.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
