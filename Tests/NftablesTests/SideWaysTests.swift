import Glibc
import Testing

@testable import Nftables

@Suite struct SideWaysTests {
    private static let alone = SideWays(hasUpstreamInside: false, needsPrograms: false, hasFence: false)
    private static let inside = SideWays(hasUpstreamInside: true, needsPrograms: false, hasFence: true)

    private func found(_ script: String, by ways: SideWays = alone) throws -> [SidePath] {
        try inNamespace {
            if !script.isEmpty { try shell("set -e; \(script)") }
            return try ways.find()
        }
    }

    private func chain(_ hook: String, _ rule: String) -> String {
        "nft 'table ip other { chain c { \(hook); \(rule); }; }'"
    }

    @Test func anOrdinaryNetworkHasNone() throws {
        #expect(try found("") == [])
        #expect(try found("", by: Self.inside) == [])
    }

    /// The hook hardly matters: what a rule does is looked at.
    @Test(arguments: [
        "meta mark set 1", "ip daddr set 192.0.2.1", "ct mark set 2", "notrack", "dup to 192.0.2.1",

        "tcp option maxseg size set 1000", "ct zone set 3",
    ])
    func rulesThatChangePackets(rule: String) throws {
        let hook = "type filter hook output priority -300"
        let paths = try found(chain(hook, rule))
        #expect(paths.count == 1, "\(paths)")
        #expect(paths.first?.what.hasPrefix("a rule of chain c in table ip other with ") == true, "\(paths)")
        #expect(try found(chain(hook, "tcp dport 25 counter drop")) == [])
        #expect(
            try found(chain(hook, "meta mark 5 ct state new ip daddr 192.0.2.0/24 limit rate 1/second log reject"))
                == []
        )
    }

    @Test func translationsMatterWhereOurSocketsAreInside() throws {
        let hook = "type nat hook output priority -50"
        for rule in ["dnat to 192.0.2.1", "tcp dport 80 redirect to :81", "ip saddr 127.0.0.12 dnat to 192.0.2.1"] {
            #expect(try found(chain(hook, rule)) == [])
            #expect(try found(chain(hook, rule), by: Self.inside).count == 1, "\(rule)")
        }
        #expect(
            try found(chain(hook, "ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:5353"), by: Self.inside) == []
        )
        let after = "type nat hook postrouting priority 100"
        #expect(try found(chain(after, "masquerade"), by: Self.inside) == [])
        #expect(try found(chain(after, "snat to 192.0.2.1"), by: Self.inside) == [])
    }

    @Test(arguments: ["iptables", "iptables-legacy"])
    func rulesOfIptables(program: String) throws {
        let prefix = "\(program) -t nat -A OUTPUT"
        #expect(try found("\(program) -A OUTPUT -p tcp --dport 25 -j REJECT; \(prefix) -p tcp -j REDIRECT") == [])
        #expect(try found("\(prefix) -p tcp -j DNAT --to 192.0.2.1", by: Self.inside).count == 1)
        #expect(try found("\(prefix) ! -d 127.0.0.11 -p tcp -j DNAT --to 192.0.2.1", by: Self.inside).count == 1)
        #expect(try found("\(prefix) -d 127.0.0.0/8 -p tcp -j DNAT --to 192.0.2.1", by: Self.inside).count == 1)
        let docker = "-d 127.0.0.11 -p udp --dport 53 -j DNAT --to 127.0.0.11:40000"
        #expect(try found("\(prefix) \(docker)", by: Self.inside) == [])
        let paths = try found("\(program) -t mangle -A OUTPUT -j MARK --set-mark 1")
        #expect(paths.count == 1 && paths[0].what.contains("MARK"), "\(paths)")
    }

    /// What is there without a kernel that encrypts, too.
    @Test func policiesOfIPsec() throws {
        let paths = try found("ip xfrm policy add src 10.0.0.0/8 dst 192.0.2.0/24 dir out action block")
        #expect(paths.map(\.description) == ["an IPsec policy (ip xfrm policy flush)"])
    }

    @Test func devicesWhoseOtherEndIsAFile() throws {
        #expect(try found("ip tuntap add left0 mode tap") == [])
        let paths = try found("ip tuntap add left0 mode tap; ip link set left0 up")
        #expect(paths.map(\.remedy) == ["ip link del dev left0"])
    }

    /// What removes them is pasted to a shell.
    @Test func namesAreNoCommands() throws {
        let device = "'x;>y;x'"
        let paths = try found("ip link add \(device) type bridge; tc qdisc add dev \(device) clsact")
        #expect(paths.count == 1, "\(paths)")
        #expect(paths.first?.remedy.wholeMatch(of: /tc qdisc del dev if[0-9]+ clsact/) != nil, "\(paths)")
        #expect(SidePath(what: "a\u{1b}[2J", remedy: "").what == "a\\u{1b}[2J")
        for name in ["eth0", "my-table_1.2"] { #expect(SidePath.isPlain(name)) }
        for name in ["", "-h", "a b", "a;b", "$(a)", "a\n", "é"] { #expect(!SidePath.isPlain(name), "\(name)") }
    }

    @Test func ourOwnTablesAreNone() throws {
        try inNamespace {
            let table = try SandboxTableTests.makeTable()
            try table.closeDoor()
            #expect(try Self.alone.find() == [])
            try table.installRedirects()
            #expect(try Self.alone.find() == [])
        }
    }

    @Test func tablesThatAreCalledAsOurs() throws {
        for text in [
            "chain more { type filter hook output priority 1; }",
            "chain out { type filter hook output priority 0; policy accept; }",
            "chain out { }", "chain refused { type filter hook input priority 0; }",
            "chain post { type filter hook postrouting priority 299; policy accept; }",
        ] {
            let paths = try found("nft 'table inet sandgate { \(text); }'")
            #expect(paths.count == 1 && paths[0].remedy == "nft delete table inet sandgate", "\(text): \(paths)")
        }
    }

    @Test func flowsThatWereThereAreForgotten() throws {
        try inNamespace {
            try shell("nft 'table ip t { chain c { type filter hook output priority 0; ct state new counter; }; }'")
            try shell("bash -c 'echo x > /dev/udp/127.0.0.1/9'")
            #expect(try !shell("cat /proc/net/nf_conntrack 2>/dev/null || echo 127.0.0.1").isEmpty)
            let table = try SandboxTableTests.makeTable()
            try table.closeDoor()
            try table.forgetFlows()
            try shell("test ! -s /proc/net/nf_conntrack")
        }
    }
}
