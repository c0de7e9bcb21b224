public import EgressPolicy
public import NetPrimitives

/// The judgement of a TCP connection by what it shows, taken against one policy and the pins of one moment.
/// Every way in ends here: transparent connections, CONNECT tunnels and cleartext requests.
public struct TunnelJudge {
    /// What is to be done with a connection.
    public enum Route: Hashable, Sendable {
        /// It ends here.
        case refuse
        /// It goes to the address it was going to.
        case dial(Endpoint)
        /// Its pin is in grace, or was another process's: the name is resolved again and one of the new addresses dialled.
        case resolve(DomainName, port: UInt16)
    }

    /// A decision, why, and what follows from it.
    public struct Judgement: Hashable, Sendable {
        /// The decision with its reason and rule.
        public var verdict: Verdict
        /// What follows from it.
        public var route: Route
        /// The name it was taken by; what re-judging the live connection goes by.
        public var name: DomainName?

        /// A judgement from its parts.
        public init(_ verdict: Verdict, _ route: Route, name: DomainName?) {
            self.verdict = verdict
            self.route = route
            self.name = name
        }

        /// Without what follows from it.
        public var admission: Admission { Admission(verdict, name: name) }
    }

    /// What of a judgement is kept while the connection lives.
    public struct Admission: Hashable, Sendable {
        /// The decision with its reason and rule.
        public var verdict: Verdict
        /// The name it was taken by; what re-judging the live connection goes by.
        public var name: DomainName?

        /// An admission from its parts.
        public init(_ verdict: Verdict, name: DomainName?) {
            self.verdict = verdict
            self.name = name
        }
    }

    private let policy: CompiledPolicy
    private let pins: PinTable
    private let now: MonotonicTime
    private let wallTime: WallTime

    /// A judge for one moment.
    public init(policy: CompiledPolicy, pins: PinTable, now: MonotonicTime, wallTime: WallTime) {
        self.policy = policy
        self.pins = pins
        self.now = now
        self.wallTime = wallTime
    }
}

extension TunnelJudge {
    /// A connection that carries `name` (SNI, Host) and was going to `destination`.
    ///
    /// Where a name rule allows it, the destination must be pinned for that very name: otherwise any allowed name would
    /// open any server that shares the address, or one that the sandbox chose itself. Where an address rule or the
    /// default allows it, it goes where it was going.
    public func judge(name: DomainName, destination: Endpoint) -> Judgement {
        let verdict = decide(name, destination.address, destination.port)
        guard verdict.action == .allow else { return Judgement(verdict, .refuse, name: name) }
        guard verdict.basis == .name, !verdict.isReportOnly else {
            return Judgement(verdict, .dial(destination), name: name)
        }
        switch pins.pin(of: destination.address, for: name, at: now) {
        case (let pinned, .fresh)?:
            return Judgement(verdict, .dial(destination), name: pinned)
        case (let pinned, .grace)?:
            return Judgement(verdict, .resolve(pinned, port: destination.port), name: pinned)
        case nil:
            // The name opens nothing here, but the address may be open to everybody.
            let byAddress = decide(nil, destination.address, destination.port)
            if byAddress.action == .allow && !byAddress.isReportOnly {
                return Judgement(byAddress, .dial(destination), name: name)
            }
            // It may have been pinned for the name, which then is resolved again, as where its pin is in grace.
            if pins.hasForgottenNames(at: destination.address, now) {
                return Judgement(verdict, .resolve(name, port: destination.port), name: name)
            }
            let mismatch = Verdict(.deny, .nameAddressMismatch, rule: verdict.rule, basis: .name)
            return Judgement(mismatch, .refuse, name: name)
        }
    }

    /// A TLS connection without a server name: only an address rule or the default can allow it, since any server on
    /// the address may be meant.
    public func judgeNameless(destination: Endpoint, reason: Reason) -> Judgement {
        var verdict = decide(nil, destination.address, destination.port)
        guard verdict.action == .allow else {
            if verdict.reason == .default { verdict.reason = reason }
            return Judgement(verdict, .refuse, name: nil)
        }
        if verdict.isReportOnly && verdict.reason == .default { verdict.reason = reason }
        return Judgement(verdict, .dial(destination), name: nil)
    }

    /// The first bytes in a tunnel that was opened for `authority`: they must not name another host, since the
    /// destination was resolved and judged for that one.
    public func judgeTunnelled(name: DomainName, authority: DomainName, destination: Endpoint) -> Judgement {
        guard name == authority else {
            return Judgement(Verdict(.deny, .nameAddressMismatch), .refuse, name: name)
        }
        return judgeResolved(name: authority, port: destination.port, addresses: [destination.address]).0
    }

    /// A connection whose protocol carries no name that we can read, or datagrams: an address rule, the default, or a
    /// name that the address is freshly pinned for and whose rule covers the port.
    public func judgeOpaque(destination: Endpoint, over transport: TransportProtocol = .tcp) -> Judgement {
        let anonymous = decide(nil, destination.address, destination.port, transport)
        if anonymous.action == .allow && !anonymous.isReportOnly {
            return Judgement(anonymous, .dial(destination), name: nil)
        }
        for name in pins.freshNames(at: destination.address, now) {
            let verdict = decide(name, destination.address, destination.port, transport)
            if verdict.action == .allow && !verdict.isReportOnly {
                return Judgement(verdict, .dial(destination), name: name)
            }
        }
        return Judgement(anonymous, anonymous.action == .allow ? .dial(destination) : .refuse, name: nil)
    }

    /// A name that the proxy was asked for, before it is resolved: `nil` when it may be resolved, else the refusal.
    public func judgeAuthority(name: DomainName) -> Judgement? {
        switch policy.decideQuery(name, at: wallTime) {
        case .allow: nil
        case .deny(let verdict), .noData(let verdict): Judgement(verdict, .refuse, name: name)
        }
    }

    /// A name that the proxy was asked for and has resolved to `addresses`: the endpoints that may be dialled, in order,
    /// with the judgement of the first; or the refusal.
    public func judgeResolved(name: DomainName, port: UInt16, addresses: [IPAddress]) -> (Judgement, [Endpoint]) {
        var refusal: Verdict?
        var chosen: (Verdict, [Endpoint])?
        for address in addresses {
            let verdict = decide(name, address, port)
            if verdict.action == .allow {
                chosen = (chosen?.0 ?? verdict, (chosen?.1 ?? []) + [Endpoint(address, port)])
            } else {
                refusal = refusal ?? verdict
            }
        }
        if let (verdict, endpoints) = chosen {
            return (Judgement(verdict, .dial(endpoints[0]), name: name), endpoints)
        }
        return (Judgement(refusal ?? Verdict(.deny, .unresolvable), .refuse, name: name), [])
    }

    /// Whether a connection to `destination` could be allowed if it showed the right name: what the kernel's sets say
    /// of transparent connections, for those that name an address to the proxy. `nil` when it could.
    public func judgeReachability(of destination: Endpoint) -> Judgement? {
        if pins.isPinned(destination.address, at: now) { return nil }
        let verdict = decide(nil, destination.address, destination.port)
        return verdict.action == .allow ? nil : Judgement(verdict, .refuse, name: nil)
    }

    /// A live connection, after the policy changed: whether what it was allowed by still holds. `basis` is what the
    /// verdict that it was let in with says it has shown (``Verdict/shownBasis``): a name rule that came since does not
    /// stand in for the address rule that went, since the name was never bound to the address. What was allowed `once`
    /// lives on until a rule speaks against it.
    public func judgeAgain(
        name: DomainName?,
        destination: Endpoint,
        over transport: TransportProtocol = .tcp,
        basis: Verdict.Basis,
        once: Bool = false
    ) -> Verdict {
        let verdict = decide(name, destination.address, destination.port, transport)
        if once, let name, verdict.leavesOpen {
            let rule = RuleReference(source: .once, index: 0, action: .allow, target: .name(name))
            return Verdict(.allow, .rule, rule: rule, basis: .name)
        }
        guard verdict.action == .allow, verdict.basis == .name, basis != .name else { return verdict }
        return decide(nil, destination.address, destination.port, transport)
    }

    private func decide(
        _ name: DomainName?,
        _ address: IPAddress,
        _ port: UInt16,
        _ transport: TransportProtocol = .tcp
    ) -> Verdict {
        policy.decide(Flow(name: name, address: address, port: port, transport: transport), at: wallTime)
    }
}
