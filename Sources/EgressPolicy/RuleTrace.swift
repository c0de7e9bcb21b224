public import NetPrimitives

/// What one rule has to say of a flow: a line of the long answer to why a verdict was reached.
public struct RuleTrace: Hashable, Sendable {
    /// Why a rule matches, or does not.
    public enum Outcome: String, Hashable, Sendable, CaseIterable {
        /// It matches, is the first that does, and is what the verdict rests on.
        case decides
        /// It matches, but something else decided: an earlier rule, or a guard range.
        case matches
        /// It speaks of names, and the flow has none.
        case noName = "no-name"
        /// It speaks of addresses, and none is known.
        case noAddress = "no-address"
        /// Its target is another one.
        case target
        /// Its protocol is another one.
        case transport = "protocol"
        /// It allows a name without saying in words, and with ports, that UDP is meant.
        case udpNotAsked = "udp-not-asked"
        /// Its ports are others.
        case ports
        /// It would match, but has expired.
        case expired
    }

    /// The rule.
    public let rule: RuleReference
    /// What it has to say.
    public let outcome: Outcome
}

extension CompiledPolicy {
    /// Every rule, in the order in which they are tried, with what it has to say of `flow`. At most one decides: that of
    /// ``decide(_:at:)``.
    public func trace(_ flow: Flow, at time: WallTime) -> [RuleTrace] {
        let verdict = decide(flow, at: time)
        return rules.indices.map { position in
            let reference = reference(to: Int32(position))
            if verdict.reason == .rule, verdict.rule == reference {
                return RuleTrace(rule: reference, outcome: .decides)
            }
            return RuleTrace(rule: reference, outcome: outcome(position, reference.target, flow, time))
        }
    }

    private func outcome(_ position: Int, _ target: Target, _ flow: Flow, _ time: WallTime) -> RuleTrace.Outcome {
        switch target {
        case .addresses(let block):
            guard let address = flow.address else { return .noAddress }
            guard ([address] + address.embeddedIPv4).contains(where: { block.contains($0) }) else { return .target }
        default:
            guard let name = flow.name else { return .noName }
            guard target.covers(.name(name)) else { return .target }
        }
        let (rule, source) = (rules[position], source(of: position))
        guard flow.transport == .tcp ? rule.coversTCP : rule.coversUDP else {
            return flow.transport == .udp && source.transport != .tcp ? .udpNotAsked : .transport
        }
        guard rule.covers(flow.port, flow.transport) else { return .ports }
        return rule.isLive(at: time.microseconds) ? .matches : .expired
    }

    private func source(of position: Int) -> Rule {
        let reference = reference(to: Int32(position))
        return switch reference.source {
        case .denyAlways: always.deny[reference.index]
        case .allowAlways: always.allow[reference.index]
        case .policy: policy.rules[reference.index]
        case .setup: policy.setup!.rules[reference.index]
        case .answers: always.answers[reference.index]
        case .once: once[reference.index]
        }
    }
}

extension GuardRanges {
    /// The smallest range around `address`; `nil` when it lies in none.
    public func range(around address: IPAddress) -> IPPrefix? {
        let required = requiredLength(for: address)
        return required > 0 ? IPPrefix(address, length: required) : nil
    }
}
