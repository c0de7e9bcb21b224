import EgressCore
import NetPrimitives
import WireFormat

extension FuzzTarget {
    /// A client's query, and the answers that it gets.
    static let dnsQuery = FuzzTarget(name: "dns-query") { bytes in
        do throws(DNSQueryError) {
            let query = try DNSQuery(parsing: bytes)
            if case .success(let name) = query.name {
                require(DNSWireName(name) == query.wireName.folded, "the name is another one: \(name)")
            }
            for code in [DNSResponseCode.noError, .nameError, .badVersion] {
                for transport in [DNSResponse.Transport.udp, .tcp] {
                    let response = DNSResponse(code, extendedError: .blocked("sandgate: default"))
                    checkAnswer(response.encode(for: query, over: transport), to: query, code)
                }
            }
        } catch {
            guard let reply = error.reply else { return }
            require(reply.count == 12 && reply[2] & 0x80 != 0, "the reply is no response")
            require(reply.prefix(2) == bytes.prefix(2), "the reply has another identifier")
        }
    }

    private static func checkAnswer(_ bytes: [UInt8], to query: DNSQuery, _ code: DNSResponseCode) {
        guard let message = try? DNSMessage(decoding: bytes) else { fatalError("our own answer is malformed") }
        require(message.id == query.id && message.isResponse, "the answer answers another query")
        require(message.questions == [DNSQuestion(query.wireName, query.type)], "the question is another one")
        require(message.code == code || query.edns == nil, "the code is another one: \(message.code)")
        require(bytes.count <= 65_535, "the answer is too long")
    }

    /// An upstream server's answer: what is released of it, and what becomes of that on the way to the client.
    static let dnsAnswer = FuzzTarget(name: "dns-answer") { bytes in
        guard let message = try? DNSMessage(decoding: bytes) else { return }
        guard let question = message.questions.first, let name = try? question.name.domainName() else { return }
        // The query that this message answers: identifier 0 and lower case are what zeros make of it.
        var zeros = Zeros()
        let isDNSSECOK = message.id & 1 == 1
        let query = DNSUpstreamQuery(name, question.type, isDNSSECOK: isDNSSECOK, using: &zeros)
        var bytes = bytes
        bytes.replaceSubrange(0..<2, with: [0, 0])
        let nameEnd = 12 + question.name.bytes.count
        bytes.replaceSubrange(12..<nameEnd, with: question.name.folded.bytes)
        guard let answer = try? DNSAnswerSanitizer().sanitize(bytes, for: query) else { return }
        checkReleased(answer, question.type)

        let released = DNSResponse(answer.code, answers: answer.records, authorities: answer.authorities)
        let encoded = released.encode(for: DNSQuery(name, question.type), over: .tcp)
        guard let again = try? DNSMessage(decoding: encoded) else { fatalError("what is released is malformed") }
        // An answer that grew out of a message by its compressed names being written out.
        if again.code == .serverFailure { return }
        require(again.answers == answer.records, "the records changed: \(answer.records), \(again.answers)")
        require(again.authorities == answer.authorities, "the authority changed")
        guard var twice = try? DNSAnswerSanitizer().sanitize(encoded, for: query) else {
            fatalError("what is released would not be released again")
        }
        twice = twice.removingAddresses { _ in true }.answer
        require(twice.records == answer.records && twice.chain == answer.chain, "releasing twice changes the records")
    }

    private static func checkReleased(_ answer: DNSAnswer, _ type: DNSRecordType) {
        let limits = DNSAnswerSanitizer.Limits()
        require(answer.chain.count <= limits.maximumChain, "the chain is too long")
        require(answer.addresses.count <= limits.maximumAddresses, "too many addresses")
        for record in answer.records {
            require(answer.chain.contains(record.owner), "\(record.owner) is not in the chain")
            require(record.ttl <= limits.maximumTTL && answer.ttl <= record.ttl, "the TTL is too long")
            require(record.type == type || record.type == .cname || record.type == .rrsig, "a record of another type")
            guard record.type == .https || record.type == .svcb else { continue }
            require(ServiceBinding.sanitize(record.data) == record.data, "a service binding that is not clean")
        }
    }

    /// The data of an SVCB or HTTPS record.
    static let serviceBinding = FuzzTarget(name: "service-binding") { bytes in
        guard let clean = ServiceBinding.sanitize(bytes) else { return }
        require(ServiceBinding.sanitize(clean) == clean, "cleaning twice changes something")
        // Read again by nobody's code but this.
        var rest = clean.dropFirst(2)
        while let length = rest.popFirst(), length > 0 { rest = rest.dropFirst(Int(length)) }
        while rest.count >= 4 {
            let header = Array(rest.prefix(4))
            require(header[0] != 0 || !(4...6).contains(header[1]), "parameter \(header[1]) is still there")
            rest = rest.dropFirst(4 + Int(header[2]) << 8 + Int(header[3]))
        }
        require(rest.isEmpty, "the parameters do not end where the data does")
    }
}

/// A generator of nothing but zeros.
private struct Zeros: RandomNumberGenerator {
    mutating func next() -> UInt64 { 0 }
}
