import EgressCore
import NetPrimitives
import Testing
import WireFormat

@Suite struct DNSCacheTests {
    typealias Server = DNSServerDouble
    let start = MonotonicTime(nanoseconds: 5_000_000_000)
    let key = DNSCache.Key(try! DomainName("api.example"), .a)

    @Test func countsTTLsDown() throws {
        var cache = DNSCache()
        cache.store(try answer("api.example", ttl: 60), for: key, at: start)
        #expect(cache.answer(for: key, at: start)?.records.first?.ttl == 60)
        let later = cache.answer(for: key, at: start.advanced(bySeconds: 59))
        #expect(later?.records.first?.ttl == 1)
        #expect(later?.ttl == 1)
        #expect(cache.answer(for: key, at: start.advanced(bySeconds: 60)) == nil)
        #expect(cache.count == 0)
        #expect(cache.byteCount == 0)
    }

    @Test func tellsTypesAndSignaturesApart() throws {
        var cache = DNSCache()
        cache.store(try answer("api.example"), for: key, at: start)
        #expect(cache.answer(for: DNSCache.Key(key.name, .aaaa), at: start) == nil)
        #expect(cache.answer(for: DNSCache.Key(key.name, .a, isDNSSECOK: true), at: start) == nil)
        #expect(cache.answer(for: DNSCache.Key(try DomainName("other.example"), .a), at: start) == nil)
    }

    // N5
    @Test func doesNotKeepWhatMustNotBeKept() throws {
        var cache = DNSCache()
        cache.store(try answer("api.example"), for: key, at: start)
        cache.store(try answer("api.example", ttl: 0), for: key, at: start)
        #expect(cache.answer(for: key, at: start) == nil)
        #expect(cache.count == 0)
    }

    @Test func makesRoomByForgettingWhatWasUsedLeast() throws {
        var limits = DNSCache.Limits()
        limits.maximumEntries = 3
        var cache = DNSCache(limits: limits)
        let keys = try ["a.example", "b.example", "c.example", "d.example"].map { DNSCache.Key(try DomainName($0), .a) }
        for key in keys.prefix(3) { cache.store(try answer("\(key.name)"), for: key, at: start) }
        _ = cache.answer(for: keys[0], at: start)
        cache.store(try answer("d.example"), for: keys[3], at: start)
        #expect(keys.map { cache.answer(for: $0, at: start) != nil } == [true, false, true, true])
        #expect(cache.count == 3)
    }

    @Test func staysWithinItsBytes() throws {
        var limits = DNSCache.Limits()
        limits.maximumBytes = 20_000
        var cache = DNSCache(limits: limits)
        var generator = SystemRandomNumberGenerator()
        for index in 0..<2_000 {
            let name = "n\(index % 700).example"
            let key = DNSCache.Key(try DomainName(name), .a)
            if Bool.random(using: &generator) {
                cache.store(try answer(name), for: key, at: start)
            } else {
                _ = cache.answer(for: key, at: start.advanced(bySeconds: UInt64.random(in: 0...400, using: &generator)))
            }
            #expect(cache.byteCount <= 20_000)
        }
        #expect(cache.count > 10)
        cache.removeAll()
        #expect(cache.count == 0 && cache.byteCount == 0)
    }

    @Test func refusesWhatWouldTakeItsRoom() throws {
        var limits = DNSCache.Limits()
        limits.maximumBytes = 20_000
        var cache = DNSCache(limits: limits)
        cache.store(try answer("api.example"), for: key, at: start)
        let query = Server.query("big.example", .txt)
        let record = DNSResourceRecord(
            Server.name("big.example"),
            .txt,
            ttl: 60,
            data: Array(repeating: 1, count: 9_000)
        )
        let big = try DNSAnswerSanitizer().sanitize(Server.answer(query, [record]), for: query)
        cache.store(big, for: DNSCache.Key(try DomainName("big.example"), .txt), at: start)
        #expect(cache.count == 1)
    }

    private func answer(_ name: String, ttl: UInt32 = 300) throws -> DNSAnswer {
        let query = Server.query(name)
        let records = [Server.address(name, "198.51.100.7", ttl: ttl)]
        return try DNSAnswerSanitizer().sanitize(Server.answer(query, records), for: query)
    }
}
