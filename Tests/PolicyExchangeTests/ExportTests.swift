import EgressPolicy
import NetPrimitives
import PolicyDocument
import PolicyExchange
import Testing

@Suite struct ExportTests {
    private static func policy(_ yaml: String) throws -> Policy {
        try PolicyDocument.load(bytes: Array(yaml.utf8), format: .yaml, file: "p", now: Exchange.now).policy
    }

    private static func effects(_ exported: PolicyExport) -> [String] {
        exported.notes.map { "\($0.path) \($0.effect.rawValue)" }
    }

    // MARK: OpenSandbox

    @Test func `what OpenSandbox can say reads back as the same policy`() throws {
        for action in ["deny", "allow"] {
            let policy = try Self.policy(
                """
                defaultAction: \(action)
                egress:
                  - {action: deny, target: bad.example.com}
                  - {action: allow, target: "*.example.com"}
                  - {action: deny, target: 198.51.100.7}
                  - {action: allow, target: 198.51.100.0/24}
                  - {action: allow, target: "2001:db8::/32"}
                """
            )
            let exported = ExportFormat.openSandbox.write(policy, at: Exchange.now)
            #expect(Self.effects(exported) == (action == "allow" ? ["defaultAction widened"] : []))
            let again = try PolicyDocument.load(
                bytes: Array(exported.document.utf8),
                format: .json,
                file: "j",
                now: Exchange.now
            )
            #expect(again.policy == policy)
            #expect(again.warnings.isEmpty)
        }
        let empty = ExportFormat.openSandbox.write(Policy(), at: Exchange.now)
        #expect(
            try PolicyDocument.load(bytes: Array(empty.document.utf8), format: .json, file: "j", now: Exchange.now)
                .policy == Policy()
        )
    }

    private static let limited = """
        mode: report
        egress:
          - {action: allow, target: a.example, ports: [443], protocol: tcp}
          - {action: deny, target: b.example, ports: [25]}
          - {action: allow, target: c.example, ttl: 1h}
          - {action: deny, target: d.example, ttl: 1h}
          - {action: allow, target: "api-*.example.com"}
          - {action: deny, target: "bad-*.example.com"}
          - {action: allow, target: 198.51.100.7}
          - {action: deny, target: 198.51.100.0/24}
          - {action: allow, target: e.example, protocol: udp}
        """

    @Test func `what OpenSandbox cannot say allows less there`() throws {
        let policy = try Self.policy(Self.limited)
        let exported = ExportFormat.openSandbox.write(policy, at: Exchange.now)
        #expect(
            Self.effects(exported) == [
                "mode narrowed", "egress[0] left out", "egress[1] narrowed", "egress[2] left out", "egress[3] narrowed",
                "egress[4] left out", "egress[5] narrowed", "egress[6] narrowed", "egress[8] left out",
            ]
        )
        let again = try PolicyDocument.load(
            bytes: Array(exported.document.utf8),
            format: .json,
            file: "j",
            now: Exchange.now
        ).policy
        var enforced = policy
        enforced.mode = .enforce
        let difference = PolicyDifference(from: CompiledPolicy(enforced), to: CompiledPolicy(again), at: Exchange.now)
        #expect(difference.opened.isEmpty)
        #expect(
            again.rules.map { "\($0.action) \($0.target)" } == [
                "deny b.example", "deny d.example", "deny *.example.com", "allow 198.51.100.7", "deny 198.51.100.0/24",
            ]
        )
    }

    @Test func `only who asks for it gets every port`() throws {
        let exported = ExportFormat.openSandbox.write(
            try Self.policy(Self.limited),
            at: Exchange.now,
            ignoresPorts: true
        )
        #expect(
            Self.effects(exported).filter { $0.hasSuffix("widened") } == ["egress[0] widened", "egress[8] widened"]
        )
        #expect(exported.document.contains(#"{"action": "allow", "target": "a.example"}"#))
    }

    @Test func `that OpenSandbox has no guard ranges is told`() throws {
        let wide = try Self.policy(
            "egress: [{action: allow, target: 0.0.0.0/0}, {action: allow, target: 10.1.0.0/16}]\n"
        )
        #expect(Self.effects(ExportFormat.openSandbox.write(wide, at: Exchange.now)) == ["egress[0] widened"])
    }

    // MARK: Kubernetes

    @Test func `addresses and ports for Kubernetes`() throws {
        let policy = try Self.policy(
            """
            egress:
              - {action: deny, target: 198.51.100.128/25, ports: [22]}
              - {action: deny, target: 198.51.100.9}
              - {action: allow, target: 198.51.100.0/24, ports: [443, "20-30"], protocol: tcp}
              - {action: allow, target: api.example.com, ports: [443]}
              - {action: allow, target: 10.1.0.0/16, ports: [53]}
              - {action: allow, target: "2001:db8::/32", ports: [443], protocol: udp}
            """
        )
        let exported = ExportFormat.kubernetes.write(policy, at: Exchange.now)
        #expect(Self.effects(exported) == ["egress[3] left out"])
        #expect(
            exported.document == """
                apiVersion: networking.k8s.io/v1
                kind: NetworkPolicy
                metadata:
                  name: sandgate-egress
                spec:
                  # Every pod of the namespace: put the labels of those that are meant here.
                  podSelector: {}
                  policyTypes: [Egress]
                  egress:
                    - to:
                        - ipBlock:
                            cidr: 198.51.100.0/24
                            except:
                              - 198.51.100.9/32
                      ports:
                        - {protocol: TCP, port: 20, endPort: 21}
                        - {protocol: TCP, port: 23, endPort: 30}
                        - {protocol: TCP, port: 443}
                    - to:
                        - ipBlock:
                            cidr: 198.51.100.0/24
                            except:
                              - 198.51.100.9/32
                              - 198.51.100.128/25
                      ports:
                        - {protocol: TCP, port: 22}
                    # egress[3]: left out: api.example.com: there are no names there: it is denied
                    - to:
                        - ipBlock:
                            cidr: 10.1.0.0/16
                      ports:
                        - {protocol: TCP, port: 53}
                        - {protocol: UDP, port: 53}
                    - to:
                        - ipBlock:
                            cidr: "2001:db8::/32"
                      ports:
                        - {protocol: UDP, port: 443}

                """
        )
    }

    @Test func `guard ranges are exceptions for Kubernetes, and a denied name ends what can be said`() throws {
        let open = ExportFormat.kubernetes.write(try Self.policy("defaultAction: allow\n"), at: Exchange.now)
        #expect(open.notes.isEmpty)
        // The unspecified address and loopback lie in ::/96, IPv4 addresses in another form.
        for range in GuardRanges.common where range.length < 128 {
            #expect(open.document.contains("\(range.address)/\(range.length)"), "\(range)")
        }
        #expect(open.document.contains("::/96"))
        #expect(open.document.contains("- {protocol: TCP, port: 1, endPort: 65535}"))
        #expect(!open.document.contains("UDP"))
        let named = ExportFormat.kubernetes.write(
            try Self.policy(
                """
                defaultAction: allow
                egress:
                  - {action: allow, target: 192.0.2.1}
                  - {action: deny, target: bad.example}
                  - {action: allow, target: 192.0.2.2}
                """
            ),
            at: Exchange.now
        )
        #expect(Self.effects(named) == ["egress[1] narrowed", "egress[2] left out", "defaultAction left out"])
        #expect(named.document.contains("192.0.2.1/32"))
        #expect(!named.document.contains("cidr: 192.0.2.2") && !named.document.contains("0.0.0.0/0"))
        let nothing = ExportFormat.kubernetes.write(Policy(), at: Exchange.now)
        #expect(nothing.document.hasSuffix("  egress: []\n"))
    }
}
