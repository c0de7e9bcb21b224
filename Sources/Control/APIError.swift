import FoundationEssentials
import HTTPTypes
import Hummingbird
import PolicyDocument
import Sandboxes

/// What a request that could not be served is answered with: `{"code", "message", "details": [{"path", "message"}]}`.
struct APIError: Error {
    /// What is wrong with one field of the request.
    struct Detail: Encodable, Hashable {
        /// The field, such as `networkPolicy.egress[2].target`.
        let path: String
        /// What is wrong, and what was expected.
        let message: String
        /// Where it stands in the body, from 1.
        var line: Int?
        /// Where it stands in the line, from 1.
        var column: Int?
    }

    let status: HTTPResponse.Status
    /// A word for programs.
    let code: String
    /// A sentence for people.
    let message: String
    var details: [Detail] = []
    /// Fields that say more to programs, such as `Allow`.
    var headers: HTTPFields = [:]

    /// The body.
    private struct Body: Encodable {
        let code: String
        let message: String
        let details: [Detail]
    }

    /// The answer.
    var response: Response {
        Answer.json(Body(code: code, message: message, details: details), status: status, headers: headers)
    }
}

extension APIError {
    /// The answer to whatever was thrown.
    init(_ error: any Error) {
        switch error {
        case let error as APIError: self = error
        case let error as NodeError: self.init(error)
        case let error as DocumentError: self.init(error)
        case let error as HTTPError: self.init(error)
        default: self.init(status: .internalServerError, code: "internal", message: "\(error)")
        }
    }

    private init(_ error: NodeError) {
        let message = "\(error)"
        switch error {
        case .unknownSandbox: self.init(status: .notFound, code: "unknown-sandbox", message: message)
        case .unknownQuestion: self.init(status: .notFound, code: "unknown-question", message: message)
        case .conflict: self.init(status: .conflict, code: "conflict", message: message)
        case .stale: self.init(status: .preconditionFailed, code: "stale", message: message)
        case .unprocessable(let field, let problem):
            self.init(
                status: .unprocessableContent,
                code: "unprocessable",
                message: message,
                details: [Detail(path: field, message: problem)]
            )
        case .failed: self.init(status: .serviceUnavailable, code: "enforcement-failed", message: message)
        case .stopping: self.init(status: .serviceUnavailable, code: "stopping", message: message)
        }
    }

    private init(_ error: DocumentError) {
        self.init(
            status: .badRequest,
            code: "malformed",
            message: error.problems.count == 1 ? "the body has a problem" : "the body has problems",
            details: error.problems.map {
                Detail(path: $0.path, message: $0.message, line: $0.line, column: $0.column)
            }
        )
    }

    private init(_ error: HTTPError) {
        let status = error.status
        switch status {
        case .notFound: self.init(status: status, code: "unknown-path", message: "there is no such resource")
        case .contentTooLarge:
            self.init(status: status, code: "too-large", message: "at most \(Self.bodyLimit) bytes are accepted")
        default: self.init(status: status, code: "refused", message: error.body ?? status.reasonPhrase)
        }
    }

    /// A parameter of the query or of the path that is not what it should be.
    static func parameter(_ name: String, _ expectation: String) -> APIError {
        APIError(
            status: .badRequest,
            code: "malformed",
            message: "\(name): \(expectation)",
            details: [Detail(path: name, message: expectation)]
        )
    }
}

extension Request {
    /// The whole body. `types` are the media types that it may be said to have; saying nothing is no lie.
    func bytes(_ types: [String] = ["application/json"]) async throws -> [UInt8] {
        if let type = headers[.contentType], !type.isEmpty {
            let essence = type.prefix { $0 != ";" }.lowercased().filter { !$0.isWhitespace }
            guard types.contains(essence) else {
                throw APIError(
                    status: .unsupportedMediaType,
                    code: "unsupported-media-type",
                    message: "expected Content-Type: \(types.joined(separator: " or ")), found \(type)"
                )
            }
        }
        var request = self
        do {
            let buffer = try await request.collectBody(upTo: APIError.bodyLimit)
            return Array(buffer.readableBytesView)
        } catch let error as HTTPError {
            throw error
        } catch {
            throw APIError(
                status: .contentTooLarge,
                code: "too-large",
                message: "at most \(APIError.bodyLimit) bytes are accepted"
            )
        }
    }
}

extension APIError {
    /// The longest body that is read, in bytes; a policy document has the same bound.
    static let bodyLimit = 4 << 20
}
