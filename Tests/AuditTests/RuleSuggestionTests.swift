import Audit
import EgressCore
import EgressPolicy
import NetPrimitives
import PolicyDocument
import Testing

/// The lines of the table, pasted into a policy.
@Suite struct RuleSuggestionTests {
    private func pasted(_ events: [AuditEvent], before rules: [Rule] = []) throws -> CompiledPolicy {
        var summary = DenialSummary()
        events.forEach { summary.observe($0) }
        let lines = summary.render(colour: false).split(separator: "\n").filter { $0.hasPrefix("  - ") }
        let document = try PolicyDocument.loadRules(
            bytes: Array(lines.joined(separator: "\n").utf8),
            format: .yaml,
            file: "table",
            now: sampleTime
        )
        #expect(document.warnings.isEmpty)
        return CompiledPolicy(Policy(rules: document.rules + rules))
    }

    private func flow(_ event: AuditEvent) throws -> Flow {
        Flow(
            name: try event.host.map { try DomainName($0) },
            address: event.address,
            port: event.port ?? 443,
            transport: event.ipProtocol.flatMap { TransportProtocol(rawValue: $0) } ?? .tcp
        )
    }

    @Test func allowWhatWasRefusedAndNothingBeside() throws {
        let rule = Rule(.deny, .subdomains(of: try DomainName("ads.example")))
        let denied = [
            denied("evil.example", address: nil, port: nil, layer: .dns, transport: nil),
            denied("evil.example", port: 8443), denied("xn--bcher-kva.example", layer: .connect),
            denied("null", port: 80, layer: .httpHost), denied("quic.example", layer: .ip, transport: 17),
            denied(nil, address: "203.0.113.9", port: 22, layer: .ip),
            denied(nil, address: "2001:db8::9", port: 53, layer: .ip, transport: 17),
            denied(
                "x.ads.example",
                reason: .rule,
                rule: RuleReference(source: .policy, index: 0, action: .deny, target: rule.target)
            ),
        ]
        let policy = try pasted(denied, before: [rule])
        for event in denied where event.layer != .dns {
            #expect(policy.decide(try flow(event), at: sampleTime).action == .allow)
        }
        for (name, port, transport) in [
            ("evil.example", 443, TransportProtocol.tcp), ("quic.example", 443, .tcp), ("quic.example", 80, .udp),
            ("other.example", 443, .tcp), ("y.ads.example", 443, .tcp), ("sub.evil.example", 8443, .tcp),
        ] {
            let flow = Flow(name: try DomainName(name), address: nil, port: UInt16(port), transport: transport)
            #expect(policy.decide(flow, at: sampleTime).action == .deny, "\(name):\(port)")
        }
    }
}
