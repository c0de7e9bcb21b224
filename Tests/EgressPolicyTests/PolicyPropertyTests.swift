import EgressPolicy
import NetPrimitives
import Testing

/// The compiled policy held against the plain one, and the kernel's intervals and the resolver's answers against both.
@Suite struct PolicyPropertyTests {
    @Test(arguments: 0..<8) func decidesAsTheReferenceDoes(part: Int) {
        var random = SplitMix(state: UInt64(part) &* 1_000_003)
        for _ in 0..<500 {
            let sample = RandomPolicy(&random)
            let (ports, addresses) = (sample.boundaryPorts, sample.boundaryAddresses)
            let possible = sample.compiled.possibleAddresses(at: Sample.now)
            for _ in 0..<40 {
                let name = Bool.random(using: &random) ? nil : RandomPolicy.names.randomElement(using: &random)
                let flow = Flow(
                    name: name,
                    address: addresses.randomElement(using: &random),
                    port: ports.randomElement(using: &random)!,
                    transport: TransportProtocol.allCases.randomElement(using: &random)!
                )
                let verdict = sample.compiled.decide(flow, at: Sample.now)
                let expected = sample.reference.decide(flow, at: Sample.now)
                #expect(verdict == expected, "\(flow) under \(sample.policy) \(sample.always)")
                guard verdict.action == .allow, let address = flow.address else { continue }
                checkWays(to: address, flow, verdict, possible, sample)
            }
        }
    }

    /// What `decide` allows must be reachable: by the kernel's intervals, or by a pin.
    private func checkWays(
        to address: IPAddress,
        _ flow: Flow,
        _ verdict: Verdict,
        _ possible: [ClosedRange<IPAddress>],
        _ sample: RandomPolicy
    ) {
        if verdict.basis != .name {
            #expect(possible.contains { $0.contains(address) }, "\(flow) under \(sample.policy) \(sample.always)")
        }
        #expect(sample.compiled.mayUse(address, at: Sample.now))
        guard let name = flow.name, sample.policy.mode == .enforce else { return }
        if sample.reference.couldAllow(name, ports: sample.boundaryPorts, at: Sample.now) {
            #expect(
                sample.compiled.decideQuery(name, at: Sample.now) == .allow,
                "\(flow) under \(sample.policy) \(sample.always)"
            )
        }
        if verdict.basis == .name && flow.transport == .udp {
            #expect(sample.compiled.udpPorts(for: name, at: Sample.now).contains { $0.contains(flow.port) })
        }
    }

    /// What the kernel lets through to the datagram relay is not narrower than what is allowed over UDP, and over every
    /// boundary no address is let through that no datagram may be sent to.
    @Test(arguments: 0..<4) func datagramsThatAreAllowedAreLetThrough(part: Int) {
        var random = SplitMix(state: UInt64(part) &* 104_729 &+ 3)
        for _ in 0..<100 {
            let sample = RandomPolicy(&random)
            let reach = sample.compiled.datagramReach(at: Sample.now)
            let ports = sample.boundaryPorts
            for address in sample.boundaryAddresses {
                let isReached = reach.addresses.contains { $0.contains(address) }
                var hasUse = false
                for port in ports {
                    let flow = Flow(name: nil, address: address, port: port, transport: .udp)
                    guard sample.reference.decide(flow, at: Sample.now).action == .allow else { continue }
                    hasUse = true
                    #expect(isReached, "\(flow) under \(sample.policy) \(sample.always)")
                    #expect(reach.portsByAddress.contains { $0.contains(port) })
                }
                if address.embeddedIPv4.isEmpty { #expect(isReached == hasUse, "\(address) under \(sample.policy)") }
                guard let name = RandomPolicy.names.randomElement(using: &random) else { continue }
                for port in ports {
                    let flow = Flow(name: name, address: address, port: port, transport: .udp)
                    let verdict = sample.reference.decide(flow, at: Sample.now)
                    guard verdict.action == .allow, verdict.basis == .name else { continue }
                    #expect(reach.portsByName.contains { $0.contains(port) }, "\(flow) under \(sample.policy)")
                }
            }
        }
    }

    /// Over every boundary: nothing is possible, and no query is answered, that no flow has a use for.
    @Test(arguments: 0..<4) func opensNothingWithoutUse(part: Int) {
        var random = SplitMix(state: UInt64(part) &* 7_919 &+ 17)
        for _ in 0..<75 {
            let sample = RandomPolicy(&random)
            let possible = sample.compiled.possibleAddresses(at: Sample.now)
            #expect(zip(possible, possible.dropFirst()).allSatisfy { $0.upperBound < $1.lowerBound })
            for address in sample.boundaryAddresses {
                let isPossible = possible.contains { $0.contains(address) }
                let hasUse = reaches(address, nil, sample)
                // An IPv6 address and the IPv4 address in it may be allowed on different ports.
                if address.embeddedIPv4.isEmpty {
                    #expect(isPossible == hasUse, "\(address) under \(sample.policy) \(sample.always)")
                } else {
                    #expect(isPossible || !hasUse, "\(address) under \(sample.policy) \(sample.always)")
                }
            }
            for name in RandomPolicy.names.shuffled(using: &random).prefix(3) {
                checkQuery(name, sample)
            }
        }
    }

    private func checkQuery(_ name: DomainName, _ sample: RandomPolicy) {
        let isAnswered = sample.compiled.decideQuery(name, at: Sample.now) == .allow
        guard sample.policy.mode == .enforce else {
            #expect(isAnswered)
            return
        }
        let couldAllow = sample.reference.couldAllow(name, ports: sample.boundaryPorts, at: Sample.now)
        let hasUse = couldAllow && sample.boundaryAddresses.contains { reaches($0, name, sample) }
        // Rules that allow addresses are taken to leave one; see `decideQuery`.
        let allowsAddresses = sample.reference.entries.contains {
            if case .addresses = $0.rule.target { $0.action == .allow } else { false }
        }
        if allowsAddresses {
            #expect(isAnswered || !hasUse, "\(name) under \(sample.policy) \(sample.always)")
            #expect(!isAnswered || couldAllow, "\(name) under \(sample.policy) \(sample.always)")
        } else {
            #expect(isAnswered == hasUse, "\(name) under \(sample.policy) \(sample.always)")
        }
    }

    private func reaches(_ address: IPAddress, _ name: DomainName?, _ sample: RandomPolicy) -> Bool {
        TransportProtocol.allCases.contains { transport in
            sample.boundaryPorts.contains { port in
                let flow = Flow(name: name, address: address, port: port, transport: transport)
                return sample.reference.decide(flow, at: Sample.now).action == .allow
            }
        }
    }
}
