import EgressPolicy
import NetPrimitives

/// The policy's meaning, written as plainly as possible and without regard to cost: every rule is tried in order.
struct ReferenceEvaluator {
    struct Entry {
        var rule: Rule
        var action: RuleAction
        var reference: RuleReference
    }

    let policy: Policy
    let entries: [Entry]
    let guards: [IPPrefix]

    init(_ policy: Policy, always: AlwaysRules, nodeAddresses: [IPAddress]) {
        self.policy = policy
        func list(_ rules: [Rule], _ source: RuleReference.Source, _ action: RuleAction?) -> [Entry] {
            rules.enumerated().map { index, rule in
                let action = action ?? rule.action
                return Entry(
                    rule: rule,
                    action: action,
                    reference: RuleReference(source: source, index: index, action: action, target: rule.target)
                )
            }
        }
        entries =
            list(always.deny, .denyAlways, .deny) + list(always.allow, .allowAlways, .allow)
            + list(policy.rules, .policy, nil) + list(always.answers, .answers, .allow)
            + list(Self.setupRules(of: policy), .setup, .allow)
        guards = GuardRanges.common + nodeAddresses.map { IPPrefix(host: $0) }
    }

    private static func setupRules(of policy: Policy) -> [Rule] {
        guard let setup = policy.setup else { return [] }
        return setup.rules.map { rule in
            var rule = rule
            if rule.expiresAt.map({ $0 > setup.endsAt }) ?? true { rule.expiresAt = setup.endsAt }
            return rule
        }
    }

    func decide(_ flow: Flow, at time: WallTime) -> Verdict {
        var subjects: [IPAddress?] = [flow.address]
        subjects += flow.address?.embeddedIPv4 ?? []
        for case let subject? in subjects where !isOpen(subject, for: flow, at: time) {
            return Verdict(.deny, .guardRange)
        }
        var verdict: Verdict?
        for subject in subjects {
            var flow = flow
            flow.address = subject
            let next = match(flow, at: time)
            guard let current = verdict else {
                verdict = next
                continue
            }
            if current.action == .deny { break }
            if next.action == .deny || next.basis == .name { verdict = next }
        }
        var result = verdict!
        if policy.mode == .report && result.action == .deny {
            result.action = .allow
            result.isReportOnly = true
        }
        return result
    }

    /// Whether rules about names or the default could allow the name on one of these ports.
    func couldAllow(_ name: DomainName, ports: [UInt16], at time: WallTime) -> Bool {
        TransportProtocol.allCases.contains { transport in
            ports.contains { port in
                match(Flow(name: name, address: nil, port: port, transport: transport), at: time).action == .allow
            }
        }
    }

    private func match(_ flow: Flow, at time: WallTime) -> Verdict {
        for entry in entries where matches(entry, flow) && isLive(entry, time) {
            let isAddress = if case .addresses = entry.rule.target { true } else { false }
            return Verdict(entry.action, .rule, rule: entry.reference, basis: isAddress ? .address : .name)
        }
        if policy.defaultAction == .allow && flow.transport == .tcp { return Verdict(.allow, .default) }
        if let expired = entries.first(where: { matches($0, flow) }), expired.action == .allow {
            return Verdict(.deny, .expiredRule, rule: expired.reference)
        }
        return Verdict(.deny, .default)
    }

    private func isLive(_ entry: Entry, _ time: WallTime) -> Bool {
        entry.rule.expiresAt.map { time < $0 } ?? true
    }

    private func matches(_ entry: Entry, _ flow: Flow) -> Bool {
        let rule = entry.rule
        guard rule.ports.isEmpty || rule.ports.contains(where: { $0.contains(flow.port) }) else { return false }
        guard rule.transport == nil || rule.transport == flow.transport else { return false }
        if case .addresses(let prefix) = rule.target {
            return flow.address.map { prefix.contains($0) } ?? false
        }
        let asksForUDP = (rule.transport == .udp || rule.statesAnyTransport) && !rule.ports.isEmpty
        if flow.transport == .udp && entry.action == .allow && !asksForUDP { return false }
        guard let name = flow.name else { return false }
        return Self.matches(rule.target.description, name.description)
    }

    private static func matches(_ pattern: String, _ name: String) -> Bool {
        guard let star = pattern.firstIndex(of: "*") else { return pattern == name }
        let (before, after) = (pattern[..<star], pattern[pattern.index(after: star)...])
        guard name.utf8.count >= before.utf8.count + after.utf8.count, name.hasPrefix(before), name.hasSuffix(after)
        else { return false }
        let middle = name.dropFirst(before.count).dropLast(after.count)
        // `*.example.com` spans labels, but not none; `a*b.example.com` stays within one.
        return before.isEmpty && after.hasPrefix(".") ? !middle.isEmpty : !middle.contains(".")
    }

    private func isOpen(_ address: IPAddress, for flow: Flow, at time: WallTime) -> Bool {
        let required = requiredLength(address)
        guard required > 0 else { return true }
        for entry in entries {
            guard case .addresses(let prefix) = entry.rule.target, prefix.contains(address), isLive(entry, time)
            else { continue }
            guard entry.rule.ports.isEmpty || entry.rule.ports.contains(where: { $0.contains(flow.port) }),
                entry.rule.transport == nil || entry.rule.transport == flow.transport
            else { continue }
            if entry.action == .deny { return false }
            if prefix.length >= required { return true }
        }
        return false
    }

    private func requiredLength(_ address: IPAddress) -> Int {
        var ranges = guards
        if address.family == .v6 {
            // The same ranges, written as IPv6 addresses in each way there is.
            for range in guards where range.family == .v4 {
                for (index, inner) in address.embeddedIPv4.enumerated() where range.contains(inner) {
                    let is6to4 = address.description.hasPrefix("2002:")
                    let isTeredoServer =
                        address.description.hasPrefix("2001:0:") && index == 0
                        || address.description.hasPrefix("2001::") && index == 0
                    let offset = is6to4 ? 16 : isTeredoServer ? 32 : 96
                    ranges.append(IPPrefix(address, length: offset + range.length))
                }
            }
        }
        return ranges.filter { $0.contains(address) }.map(\.length).max() ?? 0
    }
}
