import NetPrimitives
import Testing

@testable import Nftables

@Suite struct SandboxRulesetTests {
    private static let ports = ListenerPorts(dns: 1053, proxy: 1080, datagrams: 1082)
    private static let gateways = [IPAddress("2001:db8::1")!, IPAddress("fe80::1")!, IPAddress("192.0.2.1")!]
    private static let onLink = [try! IPPrefix(parsing: "2001:db8:7::/64"), try! IPPrefix(parsing: "fe80::/64")]

    /// What our messages make is what nft makes of the lines that stand beside the rules.
    @Test(arguments: [SandboxRuleset.Door.closed, .open], [nil, UpstreamPass(mark: 0x1234_5678, priority: 0x9_abcd)])
    func linesSayWhatIsInstalled(door: SandboxRuleset.Door, pass: UpstreamPass?) throws {
        let installed = try inNamespace {
            let table = SandboxTable(
                netlink: try NetlinkSocket(),
                ports: Self.ports,
                nflogGroup: 5,
                gateways: Self.gateways,
                onLink: Self.onLink,
                upstream: pass,
                asksDocker: pass != nil,
                fence: pass
            )
            try table.closeDoor()
            if door == .open { try table.installRedirects() }
            let listing = try shell("nft list table inet sandgate")
            withExtendedLifetime(table) {}
            return listing
        }
        // What else was there when the table was made is said by a digest.
        let digest = try #require(installed.firstMatch(of: /comment "([^"]+)"/)?.1)
        let typed = try inNamespace {
            try shell("nft -f - <<'END'\n\(Self.typed(door, pass, digest))END\nnft list table inet sandgate")
        }
        // Only the owner differs: nft(8) ends at once.
        let lines = installed.split(separator: "\n", omittingEmptySubsequences: false)
        #expect(lines[0].hasPrefix("table inet sandgate { # progname "))
        #expect(lines[1] == "\tflags owner")
        let rest = ["table inet sandgate {"] + lines.dropFirst(3).map(String.init)
        #expect(rest.joined(separator: "\n") == typed)
    }

    private static func typed(_ door: SandboxRuleset.Door, _ pass: UpstreamPass?, _ others: Substring) -> String {
        var ruleset = SandboxRuleset(ports: ports, nflogGroup: 5, refusalLimit: RefusalLimit(), gateways: gateways)
        ruleset.onLink = onLink
        ruleset.upstream = pass
        ruleset.asksDocker = pass != nil
        ruleset.fence = pass
        var text = "table inet sandgate {\n"
        for set in ruleset.sets {
            let type =
                switch set.key {
                case .address(.v4): "ipv4_addr"
                case .address(.v6): "ipv6_addr"
                case .port: "inet_service"
                case .priority: "classid"
                }
            let flags = (set.isInterval ? "interval" : "timeout") + (set.isDynamic ? ",dynamic" : "")
            text += "set \(set.name) { type \(type); flags \(flags); }\n"
        }
        for chain in ruleset.chains {
            text += "chain \(chain.name) {\n"
            if let attachment = chain.attachment {
                text += "type \(attachment.kind) hook \(attachment.hook) priority \(attachment.priority);"
                text += " policy \(attachment.policy);\n"
            }
            for rule in ruleset.rules(of: chain, door: door) { text += rule.line + "\n" }
            text += "}\n"
        }
        return text + "chain others {\ncounter comment \"\(others)\"\n}\n}\n"
    }
}
