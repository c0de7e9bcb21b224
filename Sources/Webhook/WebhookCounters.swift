/// What became of the records that a webhook was to tell.
public struct WebhookCounters: Hashable, Sendable {
    /// How many wait.
    public internal(set) var queued = 0
    /// How many were told, and acknowledged.
    public internal(set) var delivered: UInt64 = 0
    /// How many will never be told: there was no room for them, or the server would not have them.
    public internal(set) var lost: UInt64 = 0
    /// How many requests failed; each is made again.
    public internal(set) var failures: UInt64 = 0

    /// Nothing counted yet.
    public init() {}
}
