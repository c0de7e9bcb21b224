/// Server-sent events of a daemon, and of the one that comes after it: whoever follows goes on when a daemon is restarted.
struct DaemonEvents {
    private let client: APIClient
    private let target: String
    private var stream: EventStream?

    /// Asks the daemon that runs, and throws what is wrong.
    init(_ client: APIClient, _ target: String) throws {
        self.client = client
        self.target = target
        stream = try EventStream(client, target)
    }

    /// What is to be read when it is readable; less than 0 while there is no daemon.
    var descriptor: CInt { stream?.descriptor ?? -1 }

    /// Whether there is a daemon, as far as is known.
    var isConnected: Bool { stream != nil }

    /// The data of the events that have come; `nil` when the daemon has ended.
    mutating func read() -> [[UInt8]]? {
        guard let events = try? stream?.read() else {
            stream = nil
            return nil
        }
        return events
    }

    /// Something else has shown that the daemon has ended.
    mutating func close() { stream = nil }

    /// Whether there is a daemon again. What was recorded meanwhile is to be asked for.
    mutating func reconnect() -> Bool {
        if stream == nil { stream = try? EventStream(client, target) }
        return isConnected
    }
}
