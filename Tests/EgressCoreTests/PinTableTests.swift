import EgressCore
import NetPrimitives
import Testing

@Suite struct PinTableTests {
    let address = IPAddress("198.51.100.7")!
    let other = IPAddress("2001:db8::7")!
    let name = try! DomainName("api.example")
    let start = MonotonicTime(nanoseconds: 1_000_000_000)

    @Test func isFreshForFiveMinutesAtLeastThenInGraceForAnHour() throws {
        var pins = PinTable()
        try pins.admit(address, for: name, ttl: 0, at: start)
        #expect(pins.freshness(of: address, for: name, at: start.advanced(bySeconds: 299)) == .fresh)
        #expect(pins.freshness(of: address, for: name, at: start.advanced(bySeconds: 300)) == .grace)
        #expect(pins.freshness(of: address, for: name, at: start.advanced(bySeconds: 3_899)) == .grace)
        #expect(pins.freshness(of: address, for: name, at: start.advanced(bySeconds: 3_900)) == nil)
        #expect(pins.kernelTimeout(for: other, ttl: 0, at: start) == 3_900)
    }

    @Test func followsTheTTLUpToADay() throws {
        var pins = PinTable()
        try pins.admit(address, for: name, ttl: 7_200, at: start)
        #expect(pins.freshness(of: address, for: name, at: start.advanced(bySeconds: 7_199)) == .fresh)
        #expect(pins.kernelTimeout(for: other, ttl: .max, at: start) == 86_400 + 3_600)
    }

    @Test func neverShortensWhatTheKernelHolds() throws {
        var pins = PinTable()
        try pins.admit(address, for: name, ttl: 7_200, at: start)
        let later = start.advanced(bySeconds: 7_000)
        // Another name at the address, or the same from the cache with little time left.
        #expect(pins.kernelTimeout(for: address, ttl: 0, at: later) == 3_900)
        #expect(pins.kernelTimeout(for: address, ttl: 0, at: start.advanced(bySeconds: 100)) == 10_700)
        try pins.admit(address, for: try DomainName("other.example"), ttl: 86_400, at: later)
        let late = start.advanced(bySeconds: 7_200 + 3_000)
        #expect(pins.renew(address, for: name, at: late) == 86_800)
    }

    @Test func isCurrentForASecond() throws {
        var pins = PinTable()
        try pins.admit(address, for: name, ttl: 60, at: start)
        func isCurrent(_ addresses: [IPAddress], _ name: DomainName, ttl: UInt32 = 60, after seconds: UInt64) -> Bool {
            pins.isCurrent(addresses, for: name, ttl: ttl, at: start.advanced(bySeconds: seconds))
        }
        #expect(isCurrent([address], name, after: 0))
        #expect(isCurrent([], name, after: 0))
        #expect(isCurrent([address], name, after: 1))
        #expect(!isCurrent([address], name, after: 2))
        #expect(!isCurrent([address], name, ttl: 400, after: 0))
        #expect(!isCurrent([address, other], name, after: 0))
        #expect(!isCurrent([address], try DomainName("other.example"), after: 0))
        _ = pins.revoke(names: { _ in true }, addresses: { _ in false })
        #expect(!isCurrent([address], name, after: 0))
    }

    @Test func holdsAnAddressForItsOwnNameOnly() throws {
        var pins = PinTable()
        try pins.admit(address, for: name, ttl: 60, at: start)
        #expect(pins.freshness(of: address, for: try DomainName("other.example"), at: start) == nil)
        #expect(pins.freshness(of: other, for: name, at: start) == nil)
        #expect(pins.freshNames(at: address, start) == [name])
        #expect(pins.holds(name))
    }

    @Test func resolvingAgainNeverShortensAPin() throws {
        var pins = PinTable()
        try pins.admit(address, for: name, ttl: 7_200, at: start)
        try pins.admit(address, for: name, ttl: 1, at: start.advanced(bySeconds: 1))
        #expect(pins.freshness(of: address, for: name, at: start.advanced(bySeconds: 7_199)) == .fresh)
    }

    @Test func connectionsRenewTheGraceWhenHalfOfItIsGone() throws {
        var pins = PinTable()
        try pins.admit(address, for: name, ttl: 0, at: start)
        #expect(pins.renew(address, for: name, at: start.advanced(bySeconds: 310)) == nil)
        let late = start.advanced(bySeconds: 3_000)
        #expect(pins.renew(address, for: name, at: late) == 3_600)
        #expect(pins.freshness(of: address, for: name, at: late.advanced(bySeconds: 3_599)) == .grace)
        #expect(pins.renew(address, for: name, at: late.advanced(bySeconds: 3_600)) == nil)
    }

    @Test func revocationNamesTheAddressesThatNoNameHolds() throws {
        var pins = PinTable()
        let second = try DomainName("second.example")
        try pins.admit(address, for: name, ttl: 60, at: start)
        try pins.admit(address, for: second, ttl: 60, at: start)
        try pins.admit(other, for: name, ttl: 60, at: start)
        #expect(pins.revoke(names: { $0 == name }, addresses: { _ in false }) == [other])
        #expect(!pins.holds(name))
        #expect(pins.holds(second))
        #expect(pins.freshNames(at: address, start) == [second])
    }

    /// A sandbox can have a hundred times as many admissions as names and addresses, and others wait while they are revoked.
    @Test func everyNameAndAddressIsAskedAboutOnce() throws {
        var pins = PinTable()
        let names = try (0..<8).map { try DomainName("name\($0).example") }
        let addresses = (0..<4).map { IPAddress(v4: 0xc000_0200 + $0) }
        for name in names {
            for address in addresses { try pins.admit(address, for: name, ttl: 60, at: start) }
        }
        var (askedNames, askedAddresses): ([DomainName], [IPAddress]) = ([], [])
        let gone = pins.revoke(
            names: { name in
                askedNames.append(name)
                return name == names[0]
            },
            addresses: { address in
                askedAddresses.append(address)
                return address == addresses[0]
            }
        )
        #expect(gone == [addresses[0]])
        #expect(askedNames.sorted() == names && askedAddresses.sorted() == addresses)
        #expect(pins.freshNames(at: addresses[1], start).sorted() == Array(names[1...]))
    }

    @Test func refusesMoreAddressesThanItsBoundAndForgetsExpiredOnes() throws {
        var limits = PinTable.Limits()
        limits.maximumAddresses = 1
        var pins = PinTable(limits: limits)
        try pins.admit(address, for: name, ttl: 0, at: start)
        #expect(!pins.hasRoom(for: [other]))
        #expect(pins.hasRoom(for: [address]))
        #expect(throws: PinTable.AdmissionError.tooManyAddresses) {
            try pins.admit(other, for: name, ttl: 0, at: start)
        }
        #expect(pins.removeExpired(at: start.advanced(bySeconds: 3_900)) == [address])
        #expect(pins.hasRoom(for: [other]))
        #expect(!pins.holds(name))
    }

    @Test func theNameResolvedLongestAgoMakesRoomAtASharedAddress() throws {
        var limits = PinTable.Limits()
        limits.maximumNamesPerAddress = 2
        var pins = PinTable(limits: limits)
        let names = try (0..<3).map { try DomainName("host\($0).example") }
        for (offset, name) in names.enumerated() {
            try pins.admit(address, for: name, ttl: 0, at: start.advanced(bySeconds: UInt64(offset)))
        }
        #expect(pins.freshNames(at: address, start.advanced(bySeconds: 3)) == [names[2], names[1]])
        #expect(!pins.holds(names[0]))
        #expect(pins.lastName(at: address) == names[2])
    }
}
