import EgressPolicy
import NetPrimitives
import PolicyDocument

/// The `networkPolicy` of OpenSandbox's create request.
///
/// After OpenSandbox's API (alibaba/OpenSandbox, specs/sandbox-lifecycle.yml and specs/egress-api.yaml): a NetworkRule has
/// `action` and `target`, a name, `*.name`, an address or a CIDR, and nothing else. Denied addresses go before allowed ones
/// there, whatever their order. There are no guard ranges.
struct OpenSandboxExporter {
    let policy: Policy
    let time: WallTime
    let ignoresPorts: Bool

    func write() -> PolicyExport {
        var notes: [PolicyExport.Note] = []
        if policy.mode == .report {
            notes.append(.init(.narrowed, "mode", "there is no report mode: what is denied is denied"))
        }
        notes += policy.setup.map { [.leftOut($0)] } ?? []
        if policy.defaultAction == .allow {
            notes.append(
                .init(.widened, "defaultAction", "allow: there also UDP and private addresses, unless rules deny them")
            )
        }
        var lines: [String] = []
        let overruled = overruledAllowances()
        for (index, rule) in policy.rules.enumerated() {
            let path = "egress[\(index)]"
            guard let target = target(of: rule, path, &notes) else { continue }
            if overruled.contains(index) {
                notes.append(
                    .init(.narrowed, path, "denied addresses go before allowed ones there, also those of later rules")
                )
            }
            if rule.action == .allow, case .addresses(let prefix) = target, prefix.guardRange == nil,
                GuardRanges.common.contains(where: { prefix.contains($0) })
            {
                notes.append(
                    .init(.widened, path, "\(prefix): there also the private addresses in it, unless rules deny them")
                )
            }
            lines.append("      {\"action\": \"\(rule.action.rawValue)\", \"target\": \"\(target)\"}")
        }
        let list = lines.isEmpty ? "[]" : "[\n" + lines.joined(separator: ",\n") + "\n    ]"
        let document = """
            {
              "networkPolicy": {
                "defaultAction": "\(policy.defaultAction.rawValue)",
                "egress": \(list)
              }
            }

            """
        return PolicyExport(document: document, notes: notes)
    }

    /// What the rule speaks of there; `nil` when it is left out.
    private func target(of rule: Rule, _ path: String, _ notes: inout [PolicyExport.Note]) -> Target? {
        let isDenial = rule.action == .deny
        if let expiry = rule.expiresAt {
            guard expiry > time else {
                notes.append(.init(.leftOut, path, "it has expired"))
                return nil
            }
            guard isDenial else {
                notes.append(.init(.leftOut, path, "rules do not expire there"))
                return nil
            }
            notes.append(.init(.narrowed, path, "rules do not expire there: it denies for good"))
        }
        if !rule.ports.isEmpty || rule.transport != nil {
            let limits =
                rule.ports.isEmpty
                ? "protocol \(rule.transport.map { "\($0)" } ?? "any")"
                : "ports \(rule.ports.prefix(8).map(\.description).joined(separator: ", "))"
            if isDenial {
                notes.append(
                    .init(
                        .narrowed,
                        path,
                        "\(limits): rules have no ports and no protocol there: it denies all of them"
                    )
                )
            } else if ignoresPorts {
                notes.append(
                    .init(
                        .widened,
                        path,
                        "\(limits): rules have no ports and no protocol there: all of them are allowed"
                    )
                )
            } else {
                notes.append(
                    .init(
                        .leftOut,
                        path,
                        "\(limits): rules have no ports and no protocol there; --ignore-ports allows all of them"
                    )
                )
                return nil
            }
        }
        if case .label(_, _, let parent) = rule.target {
            guard isDenial else {
                notes.append(
                    .init(.leftOut, path, "\(rule.target): a wildcard is a whole label there, as in *.example.com")
                )
                return nil
            }
            let wide = Target.subdomains(of: parent)
            notes.append(.init(.narrowed, path, "\(rule.target): a wildcard is a whole label there: it denies \(wide)"))
            return wide
        }
        return rule.target
    }

    /// The allowances of addresses that a later denial takes (a part of) away there, and does not here.
    private func overruledAllowances() -> Set<Int> {
        var allowed: [(index: Int, prefix: IPPrefix)] = []
        var denied: [(index: Int, prefix: IPPrefix)] = []
        for (index, rule) in policy.rules.enumerated() {
            guard case .addresses(let prefix) = rule.target else { continue }
            if rule.action == .allow { allowed.append((index, prefix)) } else { denied.append((index, prefix)) }
        }
        // With so many rules it is not looked at each other.
        let isMuch = allowed.count * denied.count > 4_000_000
        return Set(
            allowed.filter { one in
                isMuch
                    || denied.contains {
                        $0.index > one.index && ($0.prefix.contains(one.prefix) || one.prefix.contains($0.prefix))
                    }
            }.map(\.index)
        )
    }
}
