import FoundationEssentials
import HTTPTypes
import Hummingbird
import NIOCore

/// Builds answers.
enum Answer {
    /// A value as JSON, keys sorted.
    static func json(_ value: some Encodable, status: HTTPResponse.Status = .ok, headers: HTTPFields = [:]) -> Response
    {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            return raw(Array(try encoder.encode(value)), type: "application/json", status: status, headers: headers)
        } catch {
            // Nothing that is answered holds what JSON cannot say.
            preconditionFailure("an answer cannot be encoded: \(error)")
        }
    }

    /// Bytes of a media type.
    static func raw(
        _ bytes: [UInt8],
        type: String,
        status: HTTPResponse.Status = .ok,
        headers: HTTPFields = [:]
    ) -> Response {
        var headers = headers
        headers[.contentType] = type
        headers[.cacheControl] = headers[.cacheControl] ?? "no-store"
        return Response(status: status, headers: headers, body: .init(byteBuffer: ByteBuffer(bytes: bytes)))
    }

    /// No body.
    static func empty(_ status: HTTPResponse.Status) -> Response {
        Response(status: status, headers: [.cacheControl: "no-store"])
    }
}
