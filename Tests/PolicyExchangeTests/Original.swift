import EgressPolicy
import NetPrimitives
import PolicyDocument
import PolicyExchange
import Testing

/// What another tool says of a destination by its documentation, and what becomes of it here.
enum Original {
    /// It passes there, and here.
    case allows
    /// It is refused there, so here too.
    case denies
    /// It passes there, and is refused here: a note says so, or it is a guard range.
    case allowsMore
}

/// A destination: a name or an address, with `:port` behind it, and `/udp` where it is not TCP.
struct Destination: CustomStringConvertible, ExpressibleByStringLiteral {
    let description: String

    init(stringLiteral text: String) {
        description = text
    }

    /// The flow; a name has a public address.
    var flow: Flow {
        get throws {
            var text = description[...]
            var transport = TransportProtocol.tcp
            if text.hasSuffix("/udp") {
                transport = .udp
                text = text.dropLast(4)
            }
            var port: UInt16 = 443
            let isBare = text.filter { $0 == ":" }.count != 1 && !text.contains("]:")
            if let colon = text.lastIndex(of: ":"), !isBare {
                port = try #require(UInt16(text[text.index(after: colon)...]))
                text = text[..<colon]
            }
            if text.hasPrefix("[") { text = text.dropFirst().dropLast() }
            // A name at an address: `name@address`.
            let parts = text.split(separator: "@")
            if parts.count == 2 {
                let address = try #require(IPAddress(String(parts[1])))
                return Flow(name: try DomainName(String(parts[0])), address: address, port: port, transport: transport)
            }
            if let address = IPAddress(String(text)) {
                return Flow(name: nil, address: address, port: port, transport: transport)
            }
            let address = try #require(IPAddress("93.184.215.14"))
            return Flow(name: try DomainName(String(text)), address: address, port: port, transport: transport)
        }
    }
}

/// Reads documents, and holds what came of them against what they say.
enum Exchange {
    static let now = WallTime(microseconds: 1_800_000_000_000_000)

    static func load(
        _ format: ImportFormat,
        _ text: String,
        file: String = "f",
        selection: ImportFormat.Selection = .init()
    ) throws -> PolicyImport {
        try format.load(bytes: Array(text.utf8), file: file, selection: selection)
    }

    /// The problems of a document, one line each.
    static func problems(
        _ format: ImportFormat,
        _ text: String,
        file: String = "f",
        selection: ImportFormat.Selection = .init()
    ) -> [String] {
        do throws(DocumentError) {
            _ = try format.load(bytes: Array(text.utf8), file: file, selection: selection)
            return []
        } catch {
            return error.problems.map(\.description)
        }
    }

    /// Each destination has the verdict that the original gives it, or a stricter one where that is said.
    static func check(
        _ imported: PolicyImport,
        _ table: [(Destination, Original)],
        location: SourceLocation = #_sourceLocation
    ) throws {
        let policy = CompiledPolicy(imported.policy)
        for (destination, original) in table {
            let action = policy.decide(try destination.flow, at: now).action
            let expected: RuleAction = if case .allows = original { .allow } else { .deny }
            #expect(action == expected, "\(destination)\n\(imported.yaml)", sourceLocation: location)
        }
        try reread(imported, location: location)
    }

    /// What is printed is a valid policy, and the same.
    static func reread(_ imported: PolicyImport, location: SourceLocation = #_sourceLocation) throws {
        let document = try PolicyDocument.load(bytes: Array(imported.yaml.utf8), format: .yaml, file: "y", now: now)
        #expect(document.policy == imported.policy, sourceLocation: location)
    }

    /// The notes, without the words behind the second colon.
    static func notes(_ imported: PolicyImport) -> [String] {
        imported.notes.map { "\($0.line):\($0.column) \($0.path) \($0.effect.rawValue)" }
    }
}
