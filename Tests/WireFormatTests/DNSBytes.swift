/// Writes DNS messages by hand, well-formed ones or not.
struct DNSBytes {
    var bytes: [UInt8] = []

    /// A header; the counts are what is claimed, not what follows.
    init(
        id: UInt16 = 0x1234,
        flags: UInt16 = 0x0100,
        questions: UInt16 = 1,
        answers: UInt16 = 0,
        authorities: UInt16 = 0,
        additionals: UInt16 = 0
    ) {
        for value in [id, flags, questions, answers, authorities, additionals] { append(value) }
    }

    mutating func append(_ value: UInt16) {
        bytes += [UInt8(value >> 8), UInt8(truncatingIfNeeded: value)]
    }

    /// Adds raw bytes.
    func raw(_ more: [UInt8]) -> DNSBytes {
        var copy = self
        copy.bytes += more
        return copy
    }

    /// Adds a question for `name`, class IN unless said otherwise.
    func question(_ name: String, _ type: UInt16 = 1, recordClass: UInt16 = 1) -> DNSBytes {
        question(wire: Self.name(name), type, recordClass: recordClass)
    }

    /// Adds a question for a name in wire form.
    func question(wire: [UInt8], _ type: UInt16 = 1, recordClass: UInt16 = 1) -> DNSBytes {
        var copy = raw(wire)
        copy.append(type)
        copy.append(recordClass)
        return copy
    }

    /// Adds a record owned by `owner`, in wire form; `length` lies about the data's length.
    func record(
        _ owner: [UInt8],
        _ type: UInt16,
        _ data: [UInt8],
        ttl: UInt32 = 300,
        recordClass: UInt16 = 1,
        length: Int? = nil
    ) -> DNSBytes {
        var copy = raw(owner)
        copy.append(type)
        copy.append(recordClass)
        copy.append(UInt16(ttl >> 16))
        copy.append(UInt16(truncatingIfNeeded: ttl))
        copy.append(UInt16(length ?? data.count))
        return copy.raw(data)
    }

    /// Adds an OPT record.
    func opt(size: UInt16 = 1_232, version: UInt8 = 0, dnssec: Bool = false, options: [UInt8] = []) -> DNSBytes {
        record([0], 41, options, ttl: UInt32(version) << 16 | (dnssec ? 0x8000 : 0), recordClass: size)
    }

    /// The wire form of dotted text.
    static func name(_ text: String) -> [UInt8] {
        text.split(separator: ".").flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) } + [0]
    }

    /// A pointer to the question's name.
    static let questionPointer: [UInt8] = [0xc0, 12]
}
