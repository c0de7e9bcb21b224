import NetPrimitives
import Testing

@testable import Datapath

@Suite struct ConnectionListingTests {
    private func connection(_ number: UInt32, since second: Int64 = 0, bytes: UInt64 = 0) -> LiveConnection {
        LiveConnection(
            sandbox: "box",
            number: number,
            state: .open,
            opening: .redirected,
            transport: .tcp,
            since: WallTime(microseconds: second * 1_000_000),
            bytesUp: bytes,
            bytesDown: 1
        )
    }

    private func listing(_ connections: [LiveConnection], total: Int) -> ConnectionListing {
        var listing = ConnectionListing()
        listing.connections = connections
        listing.total = total
        listing.add((up: 10, down: 100))
        return listing
    }

    @Test(arguments: [
        (ConnectionListing.Order.bytes, [3, 2, 4]), (.newest, [4, 3, 2]), (.oldest, [1, 2, 3]),
    ])
    func `what two loops found is one listing`(_ order: ConnectionListing.Order, _ expected: [UInt32]) {
        let first = listing([connection(1, since: 1), connection(3, since: 2, bytes: 9)], total: 7)
        // The second began in the same moment as the third.
        let second = listing([connection(2, since: 2, bytes: 5), connection(4, since: 3)], total: 2)
        var all = ConnectionListing()
        for part in [first, second] { all.add(part, order: order, limit: 3) }
        #expect(all.connections.map(\.number) == expected)
        #expect(all.total == 9)
        #expect((all.bytesUp, all.bytesDown) == (20, 200))
    }
}
