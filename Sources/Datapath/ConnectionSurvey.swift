import NetPrimitives

/// Looks through the live connections of sandboxes that share a loop, and describes those that come first. Some at a time, so
/// that the loop has its turns in between: what is described is what lives then.
///
///     examine, as often as it takes, each sandbox ─▶ describe, as often as it takes ─▶ listing
public struct ConnectionSurvey {
    private enum Source {
        case tunnel(Tunnel)
        case flow(DatagramFlow)

        /// As it is now; `nil` when it has ended.
        var described: LiveConnection? {
            switch self {
            case .tunnel(let tunnel): tunnel.isClosed ? nil : tunnel.described()
            case .flow(let flow): flow.isLive ? flow.described() : nil
            }
        }
    }

    /// How much more it takes to describe a connection than to look at it; judging it again is most of that.
    private static let descriptionCost = 16

    private let order: ConnectionListing.Order
    private let limit: Int
    private var kept: [(rank: ConnectionListing.Rank, source: Source)] = []
    /// What is looked at next of the sandbox that is being looked at; `nil` between two of them.
    private var slot: Int?
    private var described = 0
    private var isCut = false
    private var found = ConnectionListing()

    /// Keeps `limit` connections, at least one.
    public init(order: ConnectionListing.Order, limit: Int) {
        self.order = order
        self.limit = max(limit, 1)
    }

    /// Looks at the connections of `attachment`, from where it stopped. `allowance` is how many are looked at, and what is
    /// left of it. Returns whether all of them were; only then another sandbox may be looked at.
    public mutating func examine(_ attachment: Attachment, allowance: inout Int) -> Bool {
        if slot == nil {
            allowance -= 1
            found.add(attachment.endedBytes)
            for flow in attachment.datagrams.all {
                keep(.flow(flow), flow.number, (flow.bytesUp, flow.bytesDown), since: flow.startedAt)
                allowance -= 1
            }
        }
        var next = slot ?? 0
        while allowance > 0, next < attachment.tunnels.slotCount {
            if let tunnel = attachment.tunnels[next] {
                keep(.tunnel(tunnel), tunnel.place.number, tunnel.bytes, since: tunnel.acceptedAt)
            }
            next += 1
            allowance -= 1
        }
        let isComplete = next >= attachment.tunnels.slotCount
        slot = isComplete ? nil : next
        return isComplete
    }

    private mutating func keep(
        _ source: Source,
        _ number: UInt32,
        _ bytes: (up: UInt64, down: UInt64),
        since start: MonotonicTime
    ) {
        found.total += 1
        found.add(bytes)
        let rank = order.rank(
            bytes: bytes.up &+ bytes.down,
            start: Int64(clamping: start.nanoseconds),
            number: number
        )
        kept.append((rank, source))
        if kept.count >= limit * 2 { cut() }
    }

    private mutating func cut() {
        kept.sort { $0.rank > $1.rank }
        kept.removeLast(max(kept.count - limit, 0))
    }

    /// Describes what comes first; no sandbox is looked at any more. `allowance` is as above. Returns whether everything is
    /// described.
    public mutating func describe(allowance: inout Int) -> Bool {
        if !isCut { cut() }
        isCut = true
        while allowance > 0, described < kept.count {
            if let connection = kept[described].source.described {
                found.connections.append(connection)
            } else {
                found.total -= 1
            }
            described += 1
            allowance -= Self.descriptionCost
        }
        return described == kept.count
    }

    /// What was found and described.
    public var listing: ConnectionListing { found }
}
