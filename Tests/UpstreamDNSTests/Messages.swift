import NetPrimitives

/// Just enough of DNS to ask and to look at answers.
enum Messages {
    static let a: UInt16 = 1
    static let txt: UInt16 = 16

    static func name(_ text: String) -> [UInt8] {
        text.split(separator: ".").flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) } + [0]
    }

    static func number(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(truncatingIfNeeded: value)] }

    /// A query with RD; with EDNS, an OPT record for 1,232 bytes and no options.
    static func query(_ text: String, _ type: UInt16 = a, id: UInt16 = .random(in: 0...0xffff), edns: Bool = true)
        -> [UInt8]
    {
        let header = number(id) + [1, 0, 0, 1, 0, 0, 0, 0, 0, edns ? 1 : 0]
        let options: [UInt8] = edns ? [0, 0, 41] + number(1_232) + [0, 0, 0, 0, 0, 0] : []
        return header + name(text) + number(type) + [0, 1] + options
    }

    /// The question of a query, without what follows it.
    static func question(of query: [UInt8]) -> [UInt8] {
        var end = 12
        while query[end] != 0 { end += Int(query[end]) + 1 }
        return Array(query[12..<(end + 5)])
    }

    /// An answer to `query` with `payload` bytes of TXT strings, or none.
    static func reply(
        to query: [UInt8],
        rcode: UInt8 = 0,
        truncated: Bool = false,
        payload: Int = 0,
        edns: Bool = true
    ) -> [UInt8] {
        var bytes = Array(query[..<2]) + [truncated ? 0x83 : 0x81, 0x80 | rcode, 0, 1]
        bytes += number(payload > 0 ? 1 : 0) + [0, 0, 0, edns ? 1 : 0] + question(of: query)
        if payload > 0 {
            var strings: [UInt8] = []
            while strings.count < payload {
                let count = min(255, payload - strings.count)
                strings += [UInt8(count)] + Array(repeating: UInt8(ascii: "t"), count: count)
            }
            bytes += [0xc0, 12] + number(txt) + [0, 1, 0, 0, 0, 60] + number(UInt16(strings.count)) + strings
        }
        return bytes + (edns ? [0, 0, 41] + number(1_232) + [0, 0, 0, 0, 0, 0] : [])
    }

    static func rcode(_ reply: [UInt8]) -> UInt8 { reply[3] & 0x0f }
    static func answerCount(_ reply: [UInt8]) -> Int { Int(reply[6]) << 8 | Int(reply[7]) }
    static func isTruncated(_ reply: [UInt8]) -> Bool { reply[2] & 2 != 0 }

    static func contains(_ bytes: [UInt8], _ part: [UInt8]) -> Bool {
        bytes.indices.contains { bytes[$0...].starts(with: part) }
    }
}
