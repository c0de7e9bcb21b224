import EgressPolicy
import NetPrimitives

/// A Kubernetes NetworkPolicy: what the policy says of addresses and ports.
///
/// After the API reference, NetworkPolicy networking.k8s.io/v1 (kubernetes.io/docs/concepts/services-networking/
/// network-policies): a list of allowances that are added up, each of address blocks less exceptions, and ports. There are no
/// names and no denials, so a denial becomes an exception of the allowances behind it, and an allowance behind the denial of a
/// name is left out: whoever has the address would not be asked for the name.
struct KubernetesExporter {
    let policy: Policy
    let time: WallTime

    private struct Denial {
        let prefix: IPPrefix
        let ports: [PortRange]
        let transport: TransportProtocol?
    }

    /// One allowance of one transport.
    private struct Peer: Hashable {
        let prefix: IPPrefix
        let except: [IPPrefix]
    }

    /// More pairs of rules than this are not looked at.
    private static let pairs = 20_000_000

    func write() -> PolicyExport {
        var notes: [PolicyExport.Note] = []
        var lines: [String] = []
        func add(_ note: PolicyExport.Note) {
            notes.append(note)
            lines.append("    # \(note.text)")
        }
        if policy.mode == .report { add(.init(.narrowed, "mode", "there is no report mode: what is denied is denied")) }
        if let setup = policy.setup { add(.leftOut(setup)) }
        var denials: [Denial] = []
        var deniedName: (path: String, target: Target)?
        var work = 0
        for (index, rule) in policy.rules.enumerated() {
            let path = "egress[\(index)]"
            if let expiry = rule.expiresAt {
                guard expiry > time else {
                    add(.init(.leftOut, path, "it has expired"))
                    continue
                }
                guard rule.action == .deny else {
                    add(.init(.leftOut, path, "allowances do not expire there"))
                    continue
                }
                add(.init(.narrowed, path, "rules do not expire there: it denies for good"))
            }
            guard case .addresses(let prefix) = rule.target else {
                if rule.action == .allow {
                    add(.init(.leftOut, path, "\(rule.target): there are no names there: it is denied"))
                } else {
                    add(
                        .init(
                            .narrowed,
                            path,
                            "\(rule.target): there are no names there: what later rules allow is left out"
                        )
                    )
                    deniedName = deniedName ?? (path, rule.target)
                }
                continue
            }
            if rule.action == .deny {
                denials.append(Denial(prefix: prefix, ports: rule.ports, transport: rule.transport))
            } else if let deniedName {
                add(
                    .init(
                        .leftOut,
                        path,
                        "\(prefix): behind the denial of \(deniedName.target) (\(deniedName.path)), which could be reached at it"
                    )
                )
            } else {
                work += denials.count
                guard work <= Self.pairs else {
                    add(.init(.leftOut, path, "too many rules to look at"))
                    continue
                }
                guard let written = write(prefix, ports: rule.ports, transport: rule.transport, denials) else {
                    add(.init(.leftOut, path, "too many rules to look at"))
                    continue
                }
                if written.isEmpty { add(.init(.leftOut, path, "\(prefix): nothing is left of it")) }
                lines += written
            }
        }
        if policy.defaultAction == .allow {
            if let deniedName {
                add(
                    .init(
                        .leftOut,
                        "defaultAction",
                        "allow: behind the denial of \(deniedName.target) (\(deniedName.path))"
                    )
                )
            } else {
                for address in [IPAddress(v4: 0), IPAddress(v6: 0)] {
                    if let written = write(IPPrefix(address, length: 0), ports: [], transport: .tcp, denials) {
                        lines += written
                    } else {
                        add(.init(.leftOut, "defaultAction", "too many rules to look at"))
                    }
                }
            }
        }
        let hasRules = lines.contains { !$0.hasPrefix("    #") }
        let head = [
            "apiVersion: networking.k8s.io/v1", "kind: NetworkPolicy", "metadata:", "  name: sandgate-egress", "spec:",
            "  # Every pod of the namespace: put the labels of those that are meant here.", "  podSelector: {}",
            "  policyTypes: [Egress]",
        ]
        let body = hasRules ? ["  egress:"] + lines : lines + ["  egress: []"]
        return PolicyExport(document: (head + body).joined(separator: "\n") + "\n", notes: notes)
    }
}

// MARK: - One allowance

extension KubernetesExporter {
    /// The lines that allow a block on ports, less what is denied before; `nil` when that is too much to look at.
    private func write(
        _ prefix: IPPrefix,
        ports: [PortRange],
        transport: TransportProtocol?,
        _ denials: [Denial]
    ) -> [String]? {
        // An address that holds an IPv4 address is judged by that as well, which a block cannot say.
        let translations = GuardRanges.translations.filter { $0.family == prefix.family }
        if translations.contains(where: { $0.contains(prefix) }) { return [] }
        let guarded =
            prefix.guardRange == nil
            ? (GuardRanges.common + translations).filter { prefix.contains($0) } : []
        let near = denials.filter { $0.prefix.contains(prefix) || prefix.contains($0.prefix) }
        var services: [Peer: [(TransportProtocol, PortRange)]] = [:]
        var order: [Peer] = []
        for protocolOfPort in [TransportProtocol.tcp, .udp] where transport == nil || transport == protocolOfPort {
            let relevant = near.filter { $0.transport == nil || $0.transport == protocolOfPort }
            let segments = Self.segments(ports.isEmpty ? [.all] : ports, cut: relevant.flatMap(\.ports))
            guard segments.count * relevant.count <= Self.pairs else { return nil }
            for range in segments {
                let covering = relevant.filter { denial in
                    denial.ports.isEmpty || denial.ports.contains { $0.contains(range.lower) }
                }
                if covering.contains(where: { $0.prefix.contains(prefix) }) { continue }
                let except = Self.outermost(guarded + covering.map(\.prefix))
                let peer = Peer(prefix: prefix, except: except)
                if services[peer] == nil { order.append(peer) }
                services[peer, default: []].append((protocolOfPort, range))
            }
        }
        return order.flatMap { peer in lines(peer, services[peer] ?? []) }
    }

    private func lines(_ peer: Peer, _ services: [(TransportProtocol, PortRange)]) -> [String] {
        var lines = [
            "    - to:", "        - ipBlock:", "            cidr: \(Self.text(peer.prefix))",
        ]
        if !peer.except.isEmpty {
            lines.append("            except:")
            lines += peer.except.map { "              - \(Self.text($0))" }
        }
        lines.append("      ports:")
        for transport in [TransportProtocol.tcp, .udp] {
            let ranges = PortRange.merged(services.filter { $0.0 == transport }.map(\.1))
            let name = transport == .tcp ? "TCP" : "UDP"
            lines += ranges.map { range in
                let end = range.upper == range.lower ? "" : ", endPort: \(range.upper)"
                return "        - {protocol: \(name), port: \(range.lower)\(end)}"
            }
        }
        return lines
    }

    /// The length too, which an address of one host has there.
    private static func text(_ prefix: IPPrefix) -> String {
        let text = "\(prefix.address)/\(prefix.length)"
        return prefix.family == .v6 ? "\"\(text)\"" : text
    }

    /// Blocks that no other one of them holds, in order.
    private static func outermost(_ prefixes: [IPPrefix]) -> [IPPrefix] {
        let sorted = prefixes.sorted { ($0.address.value, $0.length) < ($1.address.value, $1.length) }
        return sorted.reduce(into: []) { kept, prefix in
            if !(kept.last?.contains(prefix) ?? false) { kept.append(prefix) }
        }
    }

    /// `ranges` in pieces, none of which lies partly in one of `cut`.
    private static func segments(_ ranges: [PortRange], cut: [PortRange]) -> [PortRange] {
        let starts = Set(cut.map { Int($0.lower) } + cut.map { Int($0.upper) + 1 }).sorted()
        return PortRange.merged(ranges).flatMap { range in
            let inside = starts.filter { $0 > Int(range.lower) && $0 <= Int(range.upper) }
            return zip([Int(range.lower)] + inside, inside + [Int(range.upper) + 1]).map {
                PortRange(UInt16($0), UInt16($1 - 1))!
            }
        }
    }
}
