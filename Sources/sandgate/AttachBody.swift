import ArgumentParser
import EgressPolicy
import PolicyDocument

/// The create request that `attach` sends.
struct AttachBody: Encodable {
    let id: String?
    let networkPolicy: Policy?
    let timeout: Int?
    let attachment: [String: any Encodable & Sendable]

    private enum Key: CodingKey { case id, networkPolicy, timeout, attachment }

    private struct Name: CodingKey {
        let stringValue: String
        var intValue: Int? { nil }

        init(stringValue: String) { self.stringValue = stringValue }
        init?(intValue: Int) { nil }
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Key.self)
        try container.encodeIfPresent(id, forKey: .id)
        try container.encodeIfPresent(networkPolicy, forKey: .networkPolicy)
        try container.encodeIfPresent(timeout, forKey: .timeout)
        var form = container.nestedContainer(keyedBy: Name.self, forKey: .attachment)
        for (name, value) in attachment { try form.encode(value, forKey: Name(stringValue: name)) }
    }
}

/// Sandboxes in paths of the API.
enum SandboxPath {
    /// An id as a component of a path.
    static func component(_ id: String) throws -> String {
        guard CreateRequest.isValidID(id) else { throw ValidationError("\(id) is no name of a sandbox") }
        return id
    }
}
