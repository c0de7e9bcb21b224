public import NetPrimitives
public import WireFormat

/// What an upstream server answered, cut down to what belongs to the question. Positive, or negative: the name does not
/// exist, or has no record of the type.
public struct DNSAnswer: Hashable, Sendable {
    /// ``DNSResponseCode/noError`` or ``DNSResponseCode/nameError``.
    public internal(set) var code: DNSResponseCode
    /// The question's name and the canonical names it leads to, in order, folded.
    public internal(set) var chain: [DNSWireName]
    /// The answer section: the CNAME records of the chain in order, then the records that were asked for.
    public internal(set) var records: [DNSResourceRecord]
    /// The authority section: for a negative answer the zone's SOA record, if the server gave it.
    public internal(set) var authorities: [DNSResourceRecord]
    /// For how many seconds the answer as a whole may be kept: the lowest TTL of its records; for a negative one what
    /// RFC 2308 says, at most 300.
    public internal(set) var ttl: UInt32
    /// Whether the server vouches for the signatures of all of it.
    public internal(set) var isAuthenticData: Bool

    /// The addresses in the answer, in order.
    public var addresses: [IPAddress] { records.compactMap(\.address) }

    /// Roughly how many bytes the answer takes in memory.
    public var cost: Int {
        let names = chain.reduce(0) { $0 + $1.bytes.count + 32 }
        let kept = records.reduce(0) { $0 + $1.cost } + authorities.reduce(0) { $0 + $1.cost }
        return names + kept + 160
    }

    /// The answer without the address records that `isUsable` rejects, and what it rejected.
    public func removingAddresses(
        unless isUsable: (IPAddress) -> Bool
    ) -> (answer: DNSAnswer, removed: [IPAddress]) {
        var removed: [IPAddress] = []
        var answer = self
        answer.records.removeAll { record in
            guard let address = record.address, !isUsable(address) else { return false }
            removed.append(address)
            return true
        }
        if !removed.isEmpty { answer.isAuthenticData = false }
        return (answer, removed)
    }

    /// The answer as it is `seconds` after it came.
    func aged(bySeconds seconds: UInt64) -> DNSAnswer {
        let age = UInt32(clamping: seconds)
        guard age > 0 else { return self }
        var answer = self
        answer.ttl = answer.ttl > age ? answer.ttl - age : 0
        for index in answer.records.indices { answer.records[index].age(by: age) }
        for index in answer.authorities.indices { answer.authorities[index].age(by: age) }
        return answer
    }
}

extension DNSResourceRecord {
    fileprivate mutating func age(by seconds: UInt32) {
        ttl = ttl > seconds ? ttl - seconds : 0
    }
}
