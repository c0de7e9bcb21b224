import NetPrimitives
import WireFormat

/// What upstream servers answer.
enum DNSServerDouble {
    /// An answer to `query`, which gives back its question.
    static func answer(
        _ query: DNSUpstreamQuery,
        code: DNSResponseCode = .noError,
        _ answers: [DNSResourceRecord],
        authorities: [DNSResourceRecord] = []
    ) -> [UInt8] {
        let asked = try! DNSQuery(parsing: query.encode())
        var response = DNSResponse(code, answers: answers, authorities: authorities)
        response.isAuthenticData = true
        return response.encode(for: asked, over: .tcp)
    }

    /// A query as the resolver sends it.
    static func query(_ name: String, _ type: DNSRecordType = .a, isDNSSECOK: Bool = false) -> DNSUpstreamQuery {
        var generator = SystemRandomNumberGenerator()
        return DNSUpstreamQuery(try! DomainName(name), type, isDNSSECOK: isDNSSECOK, using: &generator)
    }

    static func name(_ text: String) -> DNSWireName { DNSWireName(try! DomainName(text)) }

    static func address(_ owner: String, _ text: String, ttl: UInt32 = 300) -> DNSResourceRecord {
        let address = IPAddress(text)!
        return DNSResourceRecord(name(owner), address.family == .v4 ? .a : .aaaa, ttl: ttl, data: address.networkBytes)
    }

    static func alias(_ owner: String, _ target: String, ttl: UInt32 = 300) -> DNSResourceRecord {
        DNSResourceRecord(name(owner), .cname, ttl: ttl, data: name(target).bytes)
    }

    /// The start of `zone`, which lets negative answers be kept for `minimum` seconds.
    static func zone(_ zone: String, minimum: UInt16, ttl: UInt32 = 3_600) -> DNSResourceRecord {
        let times = [UInt8](repeating: 0, count: 18) + [UInt8(minimum >> 8), UInt8(minimum & 0xff)]
        let names = name("ns.example").bytes + name("host.example").bytes
        return DNSResourceRecord(name(zone), .soa, ttl: ttl, data: names + times)
    }
}
