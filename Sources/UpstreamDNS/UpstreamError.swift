internal import CAres

/// Why no upstream server gave an answer that can be used; of several servers, the last one's reason.
public enum UpstreamError: Error, Hashable, Sendable {
    /// No answer in time.
    case timeout
    /// The server's host refused: no one listens there, or the connection ended before the answer.
    case refused
    /// Nothing could be sent to the server: no route, no descriptor.
    case unreachable
    /// The resolver was closed.
    case cancelled
    /// The query or the answer is no DNS message.
    case malformed
    /// An answer came that did not count.
    case unaccepted
    /// Something else, as c-ares puts it.
    case other(code: CInt, text: String)

    /// An error from a status of c-ares. It has one status for everything that fails on a socket; `whileSending` tells
    /// whether it came before anything could have been refused.
    init(status: CInt, whileSending: Bool) {
        switch status {
        case ARES_ETIMEOUT: self = .timeout
        case ARES_ECONNREFUSED: self = whileSending ? .unreachable : .refused
        case ARES_EOF: self = .refused
        case ARES_ECANCELLED, ARES_EDESTRUCTION: self = .cancelled
        case ARES_EBADQUERY, ARES_EBADRESP, ARES_EFORMERR: self = .malformed
        default: self = .other(code: status, text: ares_strerror(status).map { String(cString: $0) } ?? "")
        }
    }
}

extension UpstreamError: CustomStringConvertible {
    /// A clause for people.
    public var description: String {
        switch self {
        case .timeout: "no answer in time"
        case .refused: "connection refused"
        case .unreachable: "server unreachable"
        case .cancelled: "cancelled"
        case .malformed: "malformed message"
        case .unaccepted: "an answer of which it is not certain who gave it"
        case .other(let code, let text): "\(text) (c-ares \(code))"
        }
    }
}
