import Hummingbird
import PolicyDocument

/// The parameters of a request's query. All of them are known and none is said twice: what is mistyped or contradicts
/// itself is refused, rather than answered as if it had not been said.
struct QueryParameters {
    private var values: [String: String] = [:]

    /// Reads them. `known` are the names that mean something here.
    init(_ request: Request, known: Set<String>) throws(APIError) {
        for field in (request.uri.query ?? "").split(separator: "&") {
            let parts = field.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let name = PercentEncoding.decode(parts[0]), known.contains(name) else {
                throw .parameter(String(parts[0]), "unknown: expected \(known.sorted().joined(separator: ", "))")
            }
            guard let value = PercentEncoding.decode(parts.count > 1 ? parts[1] : "") else {
                throw .parameter(name, "expected percent-encoded UTF-8")
            }
            guard values.updateValue(value, forKey: name) == nil else { throw .parameter(name, "stands here twice") }
        }
    }

    /// The value of a parameter; `nil` when it was not given.
    subscript(name: String) -> String? { values[name] }

    /// The value of a parameter that is a number; `nil` when it was not given.
    func number<Number: FixedWidthInteger>(_ name: String, in range: ClosedRange<Number>) throws(APIError) -> Number? {
        guard let text = values[name] else { return nil }
        guard let number = Number(text), range.contains(number) else {
            throw .parameter(name, "expected a number of \(range.lowerBound)...\(range.upperBound)")
        }
        return number
    }
}

extension RequestContext {
    /// The sandbox that the path names.
    func sandboxID() throws -> String {
        guard let id = PercentEncoding.decode(try parameters.require("id")), CreateRequest.isValidID(id) else {
            throw APIError.parameter("id", "expected the id of a sandbox")
        }
        return id
    }
}

/// Percent-encoding of RFC 3986, section 2.1.
enum PercentEncoding {
    /// What `text` says; `nil` when it is no encoding of UTF-8. A plus sign is a plus sign.
    static func decode(_ text: some StringProtocol) -> String? {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = rest.popFirst().flatMap(hexadecimal), let low = rest.popFirst().flatMap(hexadecimal) else {
                return nil
            }
            bytes.append(high << 4 | low)
        }
        return String(validating: bytes, as: UTF8.self)
    }

    private static func hexadecimal(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}
