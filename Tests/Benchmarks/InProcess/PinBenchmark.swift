import NetPrimitives
import Nftables

/// What pinning adds to an answer, in microseconds: one address through the netlink socket that is open, against
/// starting `nft -f -` for it. The middle of many in each round.
struct PinBenchmark {
    private static let pinsPerRound = 500
    private static let commandsPerRound = 15

    func run(_ rounds: Int) throws {
        let table = SandboxTable(
            netlink: try NetlinkSocket(),
            ports: ListenerPorts(dns: 1053, proxy: 1080, datagrams: 1082),
            nflogGroup: 5
        )
        try table.closeDoor()
        try table.installRedirects()
        try NftCommand.run("table inet peer { set pinned { type ipv4_addr; flags timeout; }; }")
        let name = try DomainName("some.service.example")
        var number: UInt32 = 0
        for _ in 0..<rounds {
            let ours = try (0..<Self.pinsPerRound).map { _ in
                number += 1
                let address = IPAddress(v4: 0x2000_0000 + number)
                return try timed { try table.pin([(address, timeoutSeconds: 3_900, name: name)]) }.seconds
            }
            let theirs = try (0..<Self.commandsPerRound).map { _ in
                number += 1
                let element = "\(IPAddress(v4: 0x2000_0000 + number)) timeout 3900s comment \"\(name)\""
                return try timed { try NftCommand.run("add element inet peer pinned { \(element) }") }.seconds
            }
            report(median(ours) * 1e6, median(theirs) * 1e6)
        }
    }
}
