public import NetPrimitives

/// A query of a sandbox's program that one process received, and the next one answers.
public struct HandedQuery: Sendable {
    /// As it came.
    public let message: [UInt8]
    /// Where the answer goes.
    public let source: Endpoint

    /// A query from its parts.
    public init(message: [UInt8], source: Endpoint) {
        self.message = message
        self.source = source
    }
}
