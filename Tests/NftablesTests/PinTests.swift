import Glibc
import NetPrimitives
import Testing

@testable import Nftables

@Suite struct PinTests {
    private let one = try! DomainName("one.example")
    private let two = try! DomainName("two.example")
    private let first = IPAddress("192.0.2.1")!
    private let second = IPAddress("192.0.2.2")!
    private let sixth = IPAddress("2001:db8::6")!

    /// Once as this kernel does it, once as kernels before 6.9 do.
    private func withTable(_ body: (SandboxTable) throws -> Void) throws {
        for isOld in [false, true] {
            try inNamespace {
                let table = try SandboxTableTests.makeTable()
                if isOld { table.giveUpOwnership() }
                try table.closeDoor()
                try body(table)
            }
        }
    }

    @Test func pinsExpireAndSayForWhom() throws {
        try withTable { table in
            try table.pin([(first, timeoutSeconds: 60, name: one), (sixth, timeoutSeconds: 90, name: two)])
            let four = try SetListing.pins("pinned4")
            #expect(four.keys.sorted() == [first])
            #expect(four[first]?.comment == "one.example")
            #expect(four[first]?.timeout == 60)
            let six = try SetListing.pins("pinned6")
            #expect(six.keys.sorted() == [sixth])
            #expect(six[sixth]?.comment == "two.example")
            #expect(six[sixth]?.timeout == 90)
        }
    }

    @Test func pinningAgainExtendsTheExpiry() throws {
        try withTable { table in
            try table.pin([(first, timeoutSeconds: 4, name: one), (second, timeoutSeconds: 4, name: one)])
            usleep(2_500_000)
            try table.pin([(first, timeoutSeconds: 4, name: one)])
            usleep(2_000_000)
            #expect(try SetListing.pins("pinned4").keys.sorted() == [first])
            try table.pin([(first, timeoutSeconds: 600, name: one)])
            #expect(try SetListing.pins("pinned4")[first]?.expires ?? 0 > 590)
        }
    }

    @Test func theLastNameCounts() throws {
        try withTable { table in
            try table.pin([(first, timeoutSeconds: 60, name: one)])
            try table.pin([(first, timeoutSeconds: 30, name: two), (second, timeoutSeconds: 60, name: two)])
            var pins = try SetListing.pins("pinned4")
            #expect(pins[first]?.comment == "two.example")
            #expect(pins[first]?.timeout == 30)
            try table.pin([(first, timeoutSeconds: 30, name: two), (first, timeoutSeconds: 40, name: one)])
            pins = try SetListing.pins("pinned4")
            #expect(pins[first]?.comment == "one.example")
            #expect(pins[first]?.timeout == 40)
        }
    }

    @Test func aPinAlwaysExpires() throws {
        try withTable { table in
            try table.pin([(first, timeoutSeconds: 0, name: one)])
            #expect(try SetListing.pins("pinned4")[first]?.timeout == 1)
            usleep(1_200_000)
            #expect(try SetListing.pins("pinned4").isEmpty)
            // Expired and perhaps not collected yet: neither is in the way.
            try table.pin([(first, timeoutSeconds: 60, name: two)])
            #expect(try SetListing.pins("pinned4")[first]?.comment == "two.example")
        }
    }

    /// Without root the kernel takes only small datagrams; many go in several then.
    @Test func manyAreTakenBackInSeveralBatches() throws {
        let addresses = (0..<4_000).map { IPAddress(v4: 0x0a00_0000 + $0) }
        for isOld in [false, true] {
            try inNamespace {
                let netlink = try NetlinkSocket(bus: NetlinkSocket.netfilter, bufferSize: 1 << 16)
                let ports = ListenerPorts(dns: 1, proxy: 2, datagrams: 4)
                let table = SandboxTable(netlink: netlink, ports: ports, nflogGroup: 5)
                if isOld { table.giveUpOwnership() }
                try table.closeDoor()
                for start in stride(from: 0, to: addresses.count, by: 200) {
                    try table.pin(addresses[start..<(start + 200)].map { ($0, timeoutSeconds: 60, name: one) })
                }
                try table.unpin(addresses)
                #expect(try SetListing.pins("pinned4").isEmpty)
            }
        }
    }

    @Test func unpinDoesNotMindWhatIsGone() throws {
        try withTable { table in
            try table.pin([(first, timeoutSeconds: 60, name: one), (second, timeoutSeconds: 1, name: one)])
            usleep(1_200_000)
            try table.unpin([first, second, sixth])
            #expect(try SetListing.pins("pinned4").isEmpty)
            try table.unpin([])
        }
    }

    @Test func pinsStayWhileTheDoorIsClosed() throws {
        try withTable { table in
            try table.installRedirects()
            try table.pin([(first, timeoutSeconds: 60, name: one)])
            try table.pause()
            #expect(try SetListing.pins("pinned4").keys.sorted() == [first])
            try table.pin([(second, timeoutSeconds: 60, name: one)])
            try table.resume()
            #expect(try SetListing.pins("pinned4").keys.sorted() == [first, second])
        }
    }

    /// Up to the longest name, though the kernel has no room for the comment of the last two lengths.
    @Test(arguments: 245...253) func longNames(length: Int) throws {
        let label = String(repeating: "a", count: 30) + "."
        let name = try DomainName(String(repeating: label, count: 7) + String(repeating: "b", count: length - 217))
        try withTable { table in
            try table.pin([(first, timeoutSeconds: 60, name: name)])
            let pin = try #require(try SetListing.pins("pinned4")[first])
            #expect(pin.comment == (length <= 251 ? name.description : nil))
        }
    }

    @Test func manyPinsAtOnce() throws {
        try withTable { table in
            let pins = (0..<10_000).map { (IPAddress(v4: 0x0a00_0000 + $0), timeoutSeconds: UInt32(600), name: one) }
            try table.pin(pins)
            try table.pin(pins)
            #expect(try SetListing.pins("pinned4").count == 10_000)
            try table.unpin(pins.map { $0.0 })
            #expect(try SetListing.pins("pinned4").isEmpty)
        }
    }
}
