public import WireFormat

/// Turns an upstream server's message into an answer that may be released: it must answer our very question, and of its
/// records only those count that the question leads to.
///
///     question ─CNAME─▶ … ─CNAME─▶ last name ─▶ records of the type asked for
///
/// A record beside this path (another owner, another type, the additional section) would let whoever writes one zone
/// pin addresses for the names of another.
public struct DNSAnswerSanitizer {
    /// Bounds on what one answer may hold.
    public struct Limits: Hashable, Sendable {
        /// The most names in a chain, the question's included.
        public var maximumChain = 16
        /// The most addresses; further ones are left out.
        public var maximumAddresses = 64
        /// The most records of other types; further ones are left out.
        public var maximumRecords = 256
        /// The longest a positive answer is kept, by us and by whom it is released to, in seconds. No longer than a pin
        /// is fresh.
        public var maximumTTL: UInt32 = 86_400
        /// The longest a negative answer is kept, in seconds.
        public var maximumNegativeTTL: UInt32 = 300

        /// The defaults.
        public init() {}
    }

    /// Why a message is no answer.
    public enum Failure: Error, Hashable, Sendable {
        /// It breaks the format.
        case malformed(WireError)
        /// It answers another question: another identifier, name, case, type.
        case mismatched
        /// Records are missing.
        case truncated
        /// The server could not or would not answer.
        case code(DNSResponseCode)
        /// The chain of canonical names comes back to itself or is too long.
        case endlessChain
    }

    /// Bounds on what one answer may hold.
    public let limits: Limits

    /// A sanitizer with these bounds.
    public init(limits: Limits = Limits()) {
        self.limits = limits
    }

    /// The answer to `query` that `bytes` hold.
    public func sanitize(_ bytes: [UInt8], for query: DNSUpstreamQuery) throws(Failure) -> DNSAnswer {
        let message: DNSMessage
        do {
            message = try DNSMessage(decoding: bytes)
        } catch {
            throw .malformed(error)
        }
        guard query.isAnswered(by: message) else { throw .mismatched }
        guard !message.isTruncated else { throw .truncated }
        guard message.code == .noError || message.code == .nameError else { throw .code(message.code) }
        return try Selection(query, message, limits).answer()
    }
}

/// One message on its way to being an answer.
private struct Selection {
    private let query: DNSUpstreamQuery
    private let message: DNSMessage
    private let limits: DNSAnswerSanitizer.Limits
    private let records: [DNSResourceRecord]
    private var isAltered = false

    init(_ query: DNSUpstreamQuery, _ message: DNSMessage, _ limits: DNSAnswerSanitizer.Limits) {
        self.query = query
        self.message = message
        self.limits = limits
        let isOfInternet = { (record: DNSResourceRecord) in record.recordClass == DNSRecordType.internetClass }
        // As good as always they all are; then nothing is copied.
        self.records = message.answers.allSatisfy(isOfInternet) ? message.answers : message.answers.filter(isOfInternet)
    }

    private var type: DNSRecordType { query.question.type }

    consuming func answer() throws(DNSAnswerSanitizer.Failure) -> DNSAnswer {
        let (chain, aliases) = try followChain()
        let last = chain[chain.count - 1]
        let found = message.code == .noError ? requested(at: last) : []
        let isNegative = found.isEmpty
        var authorities: [DNSResourceRecord] = []
        var ttl = limits.maximumTTL
        if isNegative {
            let authority = message.authorities.first {
                $0.negativeTTL != nil && $0.recordClass == DNSRecordType.internetClass && last.isAtOrBelow($0.owner)
            }
            if var authority {
                authority.ttl = min(authority.negativeTTL ?? 0, limits.maximumNegativeTTL)
                authorities = [authority]
            }
            // Without an SOA record a negative answer must not be kept (RFC 2308 5).
            ttl = authorities.first?.ttl ?? 0
        }
        var kept = aliases.isEmpty ? found : aliases + found
        kept += signatures(chain)
        for index in kept.indices {
            kept[index].ttl = min(kept[index].ttl, limits.maximumTTL)
            ttl = min(ttl, kept[index].ttl)
        }
        return DNSAnswer(
            code: message.code,
            chain: chain,
            records: kept,
            authorities: authorities,
            ttl: ttl,
            isAuthenticData: message.isAuthenticData && !isAltered
        )
    }

    /// The names from the question's on, and the CNAME records between them.
    private func followChain() throws(DNSAnswerSanitizer.Failure) -> ([DNSWireName], [DNSResourceRecord]) {
        var chain = [query.question.name.folded]
        var aliases: [DNSResourceRecord] = []
        // Whoever asks for the CNAME record itself gets it and no more.
        guard type != .cname else { return (chain, []) }
        var aliasOf: [DNSWireName: DNSResourceRecord] = [:]
        for record in records where record.type == .cname && aliasOf[record.owner] == nil {
            aliasOf[record.owner] = record
        }
        while let alias = aliasOf[chain[chain.count - 1]], let target = alias.canonicalName {
            guard !chain.contains(target), chain.count < limits.maximumChain else { throw .endlessChain }
            chain.append(target)
            aliases.append(alias)
        }
        return (chain, aliases)
    }

    /// The records of the type asked for that the last name of the chain owns.
    private mutating func requested(at owner: DNSWireName) -> [DNSResourceRecord] {
        let isAddress = type == .a || type == .aaaa
        let limit = isAddress ? limits.maximumAddresses : limits.maximumRecords
        // A record that is alone need not be hashed.
        let mayRepeat = records.count > 1
        var seen: Set<[UInt8]> = []
        var found: [DNSResourceRecord] = []
        for record in records where record.owner == owner && record.type == type {
            guard let kept = sanitized(record), !mayRepeat || seen.insert(kept.data).inserted else { continue }
            guard found.count < limit else {
                isAltered = true
                break
            }
            found.append(kept)
        }
        return found
    }

    private mutating func sanitized(_ record: DNSResourceRecord) -> DNSResourceRecord? {
        guard type == .https || type == .svcb else { return record }
        guard let data = ServiceBinding.sanitize(record.data) else {
            isAltered = true
            return nil
        }
        guard data != record.data else { return record }
        isAltered = true
        return DNSResourceRecord(record.owner, record.type, ttl: record.ttl, data: data)
    }

    /// The signatures of what is released, for a client that asked for them. None when something was taken out: they
    /// would not fit what is left. Signatures themselves have none (RFC 4035 2.2); who asks for them has them already.
    private func signatures(_ chain: [DNSWireName]) -> [DNSResourceRecord] {
        guard query.isDNSSECOK, !isAltered, type != .rrsig else { return [] }
        return Array(
            records.lazy.filter { record in
                guard let covered = record.coveredType, covered == .cname || covered == type else { return false }
                return chain.contains(record.owner)
            }.prefix(2 * limits.maximumChain)
        )
    }
}
