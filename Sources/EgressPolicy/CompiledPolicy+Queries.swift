public import NetPrimitives

/// What becomes of a DNS query.
public enum QueryVerdict: Hashable, Sendable {
    /// It is answered.
    case allow
    /// It is answered with NXDOMAIN.
    case deny(Verdict)
    /// The name is denied, but names below it may be allowed: the answer has no records and is not NXDOMAIN, which
    /// caches would take to hold for everything below as well (RFC 8020).
    case noData(Verdict)
}

extension CompiledPolicy {
    /// Judges a DNS query, which knows only a name: it is allowed when the name, by a rule about names or the default,
    /// could be allowed on some port and protocol, and some address is left to which a connection could be allowed.
    ///
    /// A rule about addresses alone does not make names resolve: else one CIDR rule would open the resolver as a way
    /// out for every name. In report mode everything is allowed; ask ``enforcedQuery(_:at:)`` what to record.
    public func decideQuery(_ name: DomainName, at time: WallTime) -> QueryVerdict {
        policy.mode == .report ? .allow : enforcedQuery(name, at: time)
    }

    /// ``decideQuery(_:at:)`` as it would be in mode `enforce`.
    public func enforcedQuery(_ name: DomainName, at time: WallTime) -> QueryVerdict {
        let time = time.microseconds
        var positions: [Int32] = []
        var work = 0
        // Mostly one rule speaks of a name: then its positions, which are in order, are all there are.
        var isSorted = true
        names.forEach(matching: name, work: &work) { bucket, _ in
            guard !positions.isEmpty else { return positions = bucket.positions }
            positions += bucket.positions
            isSorted = false
        }
        if !isSorted { positions.sort() }
        if hasRoute(positions, at: time) { return .allow }
        // Where it is the addresses that are denied, the rule that denies them is the one to name.
        let denials = couldAllow(positions, at: time) ? denials.chains.first ?? [] : []
        let denial = denial(by: (positions + denials).sorted(), at: time)
        var below: [Int32] = []
        names.forEach(matchingAllBelow: name) { below += $0.positions }
        if names.allowsSomethingBelow(name, at: time) || hasRoute(below.sorted(), at: time) {
            return .noData(denial)
        }
        return .deny(denial)
    }

    /// Whether the rules about a name (in order) or the default allow it anything, and some address to reach it at. With
    /// live rules that allow addresses there is taken to be one.
    private func hasRoute(_ positions: [Int32], at time: Int64) -> Bool {
        guard couldAllow(positions, at: time) else { return false }
        if denials.chains.isEmpty || allowsAddressesUntil > time { return true }
        return denials.chains.contains { couldAllow((positions + $0).sorted(), at: time) }
    }

    /// Whether `address`, from a DNS answer or named to the proxy, may be pinned or dialled for a name at all: it lies
    /// in no guard range, nor does an IPv4 address inside it, unless a rule inside the range opens it on some port.
    /// Without a time nothing has expired.
    public func mayUse(_ address: IPAddress, at time: WallTime? = nil) -> Bool {
        let time = time?.microseconds ?? .min
        return isUnguarded(address, at: time) && address.embeddedIPv4.allSatisfy { isUnguarded($0, at: time) }
    }

    /// Whether `address` lies in no guard range, or a rule inside the range opens it on some port.
    private func isUnguarded(_ address: IPAddress, at time: Int64) -> Bool {
        let required = guards.requiredLength(for: address)
        guard required > 0 else { return true }
        var found: [Int32] = []
        addresses.forEach(containing: address) { length, block in
            found += block.bearingOnGuard(length >= required).positions
        }
        return opens(found.sorted(), at: time)
    }

    /// The wildcard rule that allows `name`, for the budget of distinct names below it; `nil` when a rule for exactly
    /// that name or the default allows it anyway. Without a time nothing has expired.
    public func wildcardKey(for name: DomainName, at time: WallTime? = nil) -> RuleReference? {
        guard policy.defaultAction == .deny else { return nil }
        var first = Int32.max
        var isExact = false
        var work = 0
        names.forEach(matching: name, work: &work) { bucket, kind in
            for position in bucket.positions where rules[Int(position)].action == .allow {
                guard rules[Int(position)].isLive(at: time?.microseconds ?? .min) else { continue }
                if kind == .exact { isExact = true }
                first = min(first, position)
                return
            }
        }
        return isExact || first == .max ? nil : reference(to: first)
    }

    /// The UDP ports on which rules about names allow datagrams to `name`: those of the rules that list ports.
    public func udpPorts(for name: DomainName, at time: WallTime) -> [PortRange] {
        guard policy.mode == .enforce else { return [.all] }
        var positions: [Int32] = []
        var work = 0
        names.forEach(matching: name, work: &work) { bucket, _ in positions += bucket.positions }
        var left = PortSpace()
        var found: [PortRange] = []
        for position in positions.sorted() where rules[Int(position)].isLive(at: time.microseconds) {
            let rule = rules[Int(position)]
            if rule.action == .allow { found += left.udpPorts(of: rule) }
            left.subtract(rule)
        }
        return found.sorted { $0.lower < $1.lower }
    }

    /// Whether any rule about names could allow UDP.
    public var allowsUDPByName: Bool {
        policy.mode == .report
            || rules.indices.contains { index in
                guard rules[index].action == .allow && rules[index].coversUDP else { return false }
                if case .addresses = reference(to: Int32(index)).target { return false }
                return true
            }
    }
}

// MARK: - Whether anything is left

extension CompiledPolicy {
    /// Whether some port and protocol, or some port of `transport`, is allowed by the live ones among `positions` (in
    /// order) or the default.
    func couldAllow(_ positions: [Int32], over transport: TransportProtocol? = nil, at time: Int64) -> Bool {
        var left = PortSpace()
        for position in positions {
            let rule = rules[Int(position)]
            guard rule.isLive(at: time) else { continue }
            if rule.action == .allow {
                if left.intersects(rule, over: transport) { return true }
            } else if rule.coversEverything {
                return false
            } else {
                left.subtract(rule)
            }
        }
        return policy.defaultAction == .allow && transport != .udp && left.hasTCP
    }

    /// Whether, on some port and protocol, or some port of `transport`, the first live one among `positions` (in order),
    /// those bearing on a guard range, allows.
    func opens(_ positions: [Int32], over transport: TransportProtocol? = nil, at time: Int64) -> Bool {
        var left = PortSpace()
        for position in positions {
            let rule = rules[Int(position)]
            guard rule.isLive(at: time) else { continue }
            if rule.action == .deny {
                left.subtract(rule)
            } else if left.intersects(rule, over: transport) {
                return true
            }
        }
        return false
    }

    private func denial(by positions: [Int32], at time: Int64) -> Verdict {
        var expired = Int32.max
        for position in positions {
            if !rules[Int(position)].isLive(at: time) {
                expired = min(expired, position)
            } else if rules[Int(position)].action == .deny {
                return verdict(of: position)
            }
        }
        return defaultDenial(expired: expired)
    }
}
