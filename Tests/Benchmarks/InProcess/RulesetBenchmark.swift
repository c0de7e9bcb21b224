import EgressPolicy
import NetPrimitives
import Nftables

/// 4,096 rules about networks, compiled and in the kernel, against `nft -f -` of the same sets, in milliseconds.
struct RulesetBenchmark {
    private static let now = WallTime(microseconds: 1_800_000_000_000_000)

    func run(_ rounds: Int) throws {
        let table = SandboxTable(
            netlink: try NetlinkSocket(),
            ports: ListenerPorts(dns: 1053, proxy: 1080, datagrams: 1082),
            nflogGroup: 5
        )
        try table.closeDoor()
        try table.installRedirects()
        // None touches the next: each is an interval of its own.
        let networks = (0..<4_096).map { IPPrefix(IPAddress(v4: 0x2000_0000 + UInt32($0) * 512), length: 24) }
        let policy = Policy(rules: networks.map { Rule(.allow, .addresses($0)) })
        let script = Self.script(for: CompiledPolicy(policy))
        for _ in 0..<rounds {
            let ours = try timed { try Self.install(CompiledPolicy(policy), table) }.seconds
            let theirs = try timed { try NftCommand.run(script) }.seconds
            report(ours * 1e3, theirs * 1e3)
            try Self.install(CompiledPolicy(Policy()), table)
            try NftCommand.run("delete table inet peer")
        }
    }

    /// What an attachment does with a policy.
    private static func install(_ policy: CompiledPolicy, _ table: SandboxTable) throws {
        try table.setPossible(policy.possibleAddresses(at: now))
        let reach = policy.datagramReach(at: now)
        try table.setDatagrams(
            pinnedPorts: reach.portsByName,
            possiblePorts: reach.portsByAddress,
            reach.addresses
        )
    }

    private static func script(for policy: CompiledPolicy) -> String {
        let sets = [
            ("possible", policy.possibleAddresses(at: now)),
            ("datagrams", policy.datagramReach(at: now).addresses),
        ]
        let lines = sets.filter { !$0.1.isEmpty }.map { name, intervals in
            let elements = intervals.map { "\($0.lowerBound)-\($0.upperBound)" }.joined(separator: ", ")
            return "set \(name) { type ipv4_addr; flags interval; elements = { \(elements) }; };"
        }
        return "table inet peer { \(lines.joined(separator: " ")) }"
    }
}
