import Glibc
import NetPrimitives
import Testing

@testable import Nftables

@Suite struct AdoptionTests {
    private let name = try! DomainName("one.example")
    private let first = IPAddress("192.0.2.1")!
    private let sixth = IPAddress("2001:db8::6")!

    /// Once as this kernel does it, once as kernels before 6.9 do.
    private func withOrphan(_ body: (SandboxTable) throws -> Void) throws {
        for isOld in [false, true] {
            try inNamespace {
                try {
                    let table = try SandboxTableTests.makeTable()
                    if isOld { table.giveUpOwnership() }
                    try table.closeDoor()
                    try table.installRedirects()
                    try table.setPossible([first...first])
                    try table.setDatagrams(pinnedPorts: [PortRange(53)!], possiblePorts: [], [])
                    try table.pin([(first, timeoutSeconds: 600, name: name), (sixth, timeoutSeconds: 90, name: name)])
                }()
                let heir = try SandboxTableTests.makeTable()
                if isOld { heir.giveUpOwnership() }
                try body(heir)
            }
        }
    }

    @Test func aTableIsFound() throws {
        try withOrphan { table in
            let isThere = try table.isThere()
            #expect(isThere)
        }
        try inNamespace {
            let table = try SandboxTableTests.makeTable()
            #expect(try table.isThere() == false)
            try table.closeDoor()
            #expect(try table.isThere())
            let stranger = try SandboxTableTests.makeTable()
            #expect(try stranger.isThere(), "whoever has it")
        }
    }

    @Test func theDoorIsClosedAndPinsAreKept() throws {
        try withOrphan { table in
            try table.adopt()
            #expect(try shell("nft list chain inet sandgate nat_out").contains("redirect") == false)
            #expect(try SetListing.pins("pinned4")[first]?.comment == "one.example")
            let pins = try table.pins().sorted { $0.address < $1.address }
            #expect(pins.map(\.address) == [first, sixth])
            #expect(pins.map(\.name) == [name, name])
            #expect(pins[0].secondsLeft <= 600 && pins[0].secondsLeft > 590)
            #expect(pins[1].secondsLeft <= 90 && pins[1].secondsLeft > 80)
        }
    }

    @Test func theDoorStaysOpenForWhoeverHasTheListeners() throws {
        try withOrphan { table in
            let rules = try shell("nft list chain inet sandgate nat_out; nft list chain inet sandgate out")
            #expect(rules.contains("redirect"))
            try table.adopt(keepingDoorOpen: true)
            #expect(try shell("nft list chain inet sandgate nat_out; nft list chain inet sandgate out") == rules)
            try table.pause()
            #expect(try shell("nft list chain inet sandgate nat_out").contains("redirect") == false)
        }
    }

    @Test func whatOthersLeftInTheIntervalSetsIsReplaced() throws {
        try withOrphan { table in
            try table.adopt()
            try table.setPossible([])
            try table.setDatagrams(pinnedPorts: [], possiblePorts: [], [])
            let listing = try shell("nft list table inet sandgate")
            #expect(!listing.contains("elements = { 192.0.2.1 }"))
            #expect(!listing.contains("elements = { 53 }"))
            try table.installRedirects()
            #expect(try shell("nft list chain inet sandgate nat_out").contains("redirect"))
        }
    }

    @Test func onlyTheHeirChangesTheTable() throws {
        try withOrphan { table in
            try table.adopt()
            guard table.hasOwner else { return }
            #expect(throws: ShellFailure.self) { try shell("nft flush chain inet sandgate out") }
            let error = #expect(throws: NetlinkError.self) { try SandboxTableTests.makeTable().adopt() }
            #expect(error?.description == "cannot take over table inet sandgate: Operation not permitted")
        }
    }

    @Test func whereThereIsNoTableThereIsNothingToAdopt() throws {
        try inNamespace {
            let error = #expect(throws: NetlinkError.self) { try SandboxTableTests.makeTable().adopt() }
            #expect(error?.errno == ENOENT)
            let listing = try shell("nft list ruleset")
            #expect(listing == "")
        }
    }

    /// More than fits one datagram of the kernel's answer.
    @Test func manyPinsAreListed() throws {
        try inNamespace {
            let table = try SandboxTableTests.makeTable()
            try table.closeDoor()
            #expect(try table.pins().isEmpty)
            let pins = (0..<10_000).map { (IPAddress(v4: 0x0a00_0000 + $0), timeoutSeconds: UInt32(600), name: name) }
            try table.pin(pins)
            #expect(Set(try table.pins().map(\.address)) == Set(pins.map { $0.0 }))
        }
    }
}
