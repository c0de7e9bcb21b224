import HTTPTypes
import Hummingbird

/// An error as the original answers it.
struct PlainText: Error {
    let status: HTTPResponse.Status
    let message: String

    init(_ status: HTTPResponse.Status, _ message: String) {
        self.status = status
        self.message = message
    }

    static func answer(_ text: String, _ status: HTTPResponse.Status, headers: HTTPFields = [:]) -> Response {
        var headers = headers
        headers[.xContentTypeOptions] = "nosniff"
        return Answer.raw(Array(text.utf8), type: "text/plain; charset=utf-8", status: status, headers: headers)
    }

    /// The answer to a method that a path has not.
    static func notAllowed(_ methods: String) -> Response {
        answer("method not allowed\n", .methodNotAllowed, headers: [.allow: methods])
    }
}
