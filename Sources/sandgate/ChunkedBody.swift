/// The body of an answer whose length was not known beforehand (RFC 9112 7.1), as it comes.
struct ChunkedBody {
    private enum Place {
        /// In the line that says how long the next chunk is.
        case size
        /// In a chunk of which so much is still to come, and the line's end behind it.
        case chunk(Int)
        /// Behind the last chunk.
        case end
    }

    /// More than any line that says a size.
    private static let longestLine = 4_096

    private var place = Place.size
    private var line: [UInt8] = []

    /// Whether the last chunk has come.
    var hasEnded: Bool { if case .end = place { true } else { false } }

    /// What the next piece of the connection holds of the body; `nil` when it is not what RFC 9112 says.
    mutating func take(_ piece: some Sequence<UInt8>) -> [UInt8]? {
        var body: [UInt8] = []
        for byte in piece {
            switch place {
            case .size where byte == UInt8(ascii: "\n"):
                let digits = String(decoding: line.prefix { $0 != UInt8(ascii: ";") && $0 != 0x0D }, as: UTF8.self)
                guard let size = Int(digits, radix: 16), size >= 0, size < Int.max - 2 else { return nil }
                place = size == 0 ? .end : .chunk(size + 2)
                line = []
            case .size:
                guard line.count < Self.longestLine else { return nil }
                line.append(byte)
            case .chunk(let left):
                if left > 2 { body.append(byte) }
                place = left > 1 ? .chunk(left - 1) : .size
            case .end:
                break
            }
        }
        return body
    }
}
