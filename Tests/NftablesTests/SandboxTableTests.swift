import Glibc
import NetPrimitives
import Testing

@testable import Nftables

@Suite struct SandboxTableTests {
    static func makeTable() throws -> SandboxTable {
        SandboxTable(
            netlink: try NetlinkSocket(),
            ports: ListenerPorts(dns: 1053, proxy: 1080, datagrams: 1082),
            nflogGroup: 5
        )
    }

    @Test func aSecondTableIsRefused() throws {
        try inNamespace {
            let table = try Self.makeTable()
            try table.closeDoor()
            let error = #expect(throws: NetlinkError.self) { try Self.makeTable().closeDoor() }
            #expect(error?.errno == EPERM)
            #expect(error?.description.hasPrefix("cannot create table inet sandgate: ") == true)
            try table.delete()
            #expect(try shell("nft list ruleset") == "")
        }
    }

    @Test func nobodyElseChangesTheTable() throws {
        try inNamespace {
            let table = try Self.makeTable()
            try table.closeDoor()
            let failure = #expect(throws: ShellFailure.self) { try shell("nft flush chain inet sandgate out") }
            #expect(failure?.output.contains("Operation not permitted") == true)
            #expect(throws: ShellFailure.self) { try shell("nft delete table inet sandgate") }
            let before = try shell("nft list ruleset")
            try shell("nft flush ruleset")  // passes over what it does not own
            #expect(try shell("nft list ruleset") == before)
            #expect(throws: NetlinkError.self) { try Self.makeTable().delete() }
            try table.installRedirects()
        }
    }

    @Test func theTableOutlivesItsSocket() throws {
        try inNamespace {
            try {
                let table = try Self.makeTable()
                try table.closeDoor()
                try table.installRedirects()
            }()
            #expect(try shell("nft list chain inet sandgate out").contains("policy drop"))
            let error = #expect(throws: NetlinkError.self) { try Self.makeTable().closeDoor() }
            #expect(error?.description == "cannot create table inet sandgate: File exists")
            #expect(error?.messageIndex == 0)
        }
    }
}
