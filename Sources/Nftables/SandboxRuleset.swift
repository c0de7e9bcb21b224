import CNftnl
import NetPrimitives

/// What the kernel does with the packets of a sandbox, declared. Three outcomes for what a program sends: to our
/// resolver, to our proxy or relay, or refused. Nothing is let out because a rule liked its address.
///
///     set   pinned4/6          addresses that were resolved for an allowed name, with an expiry
///     set   possible4/6        addresses that a rule may allow whatever the name; the proxy has the last word
///     set   possible_udp4/6    those of them that some rule may allow over UDP; the relay has the last word
///     set   pinned_ports       UDP ports that some rule about names lists
///     set   possible_ports     UDP ports that some rule about addresses covers
///     set   served_ports       TCP ports on which connections from outside are let in
///     set   guesses            only with an upstream pass: its priority, for a while after somebody had a wrong mark beside it
///     chain raw_out        only with an upstream pass: our own flows get a conntrack zone of their own
///     chain nat_out        new flows of programs: to the resolver, the proxy or the relay
///     chain out            what programs send: to our listeners, on loopback, as replies of served connections, or refused
///     chain refused        counted, recorded, answered with an error
///     chain forward        nothing
///     chain in             what arrives: on loopback, on served ports, and what finds our link-layer address
///     chain post           what a bound socket would carry around the loopback device
///     chain others         nothing goes there: its rule's comment says what else the namespace had when this was made
///     chain noted          nothing goes there: its rules' comments are notes, where there are any
struct SandboxRuleset: Hashable, Sendable {
    /// Whether programs reach anything at all.
    enum Door: Hashable, Sendable {
        /// Everything is refused, what was connected before and our own listeners included.
        case closed
        case open
    }

    let ports: ListenerPorts
    let nflogGroup: UInt16
    let refusalLimit: RefusalLimit
    /// Routers of the namespace, to which neighbour discovery may go by their own address.
    let gateways: [IPAddress]
    /// What is on the links of the namespace: neighbour discovery may go to every address there by its own address. A
    /// neighbour asks from the address that it will connect from, and is answered there (RFC 4861 7.2.2, 7.2.4).
    var onLink: [IPPrefix] = []
    /// What our own sockets have, where they are in the sandbox's namespace; `nil` where they are not.
    var upstream: UpstreamPass?
    /// Whether our own sockets may ask Docker's resolver at 127.0.0.11, over TCP; only with `upstream`.
    var asksDocker = false
    /// What packets get that have been judged, for ``EgressFence``; `nil` where there is none.
    var fence: UpstreamPass?

    static let table = "sandgate"
    /// The mark of connections that were let in from outside: what lets their replies out, and nothing else.
    static let servedMark: UInt32 = 2
    /// The conntrack zone of flows that our own sockets begin, in the original direction. What a program sends from a port
    /// that one of ours has used finds no entry of that flow, and is judged as what it is.
    static let upstreamZone: UInt16 = 7
    /// How long nothing is sent with the priority of our own sockets after somebody had another mark beside it. The kernel
    /// tells priorities to everybody (INET_DIAG_CLASS_ID of sock_diag(7)); all 2³² marks could be tried beside it within hours,
    /// and at one in so long within centuries.
    static let guessMilliseconds: UInt64 = 10_000
    /// The prefix of the packets in NFLOG.
    static let logPrefix = "sandgate refused"
}

/// How much of what is refused is recorded: it costs a third more than refusing alone, and the record must not be a
/// way to keep the node busy.
public struct RefusalLimit: Hashable, Sendable {
    /// Packets a second.
    public var packetsPerSecond: UInt64
    /// Packets that may come at once.
    public var burst: UInt32

    /// A limit from its parts; the defaults suit a sandbox that is not trying.
    public init(packetsPerSecond: UInt64 = 100, burst: UInt32 = 200) {
        self.packetsPerSecond = packetsPerSecond
        self.burst = burst
    }
}

// MARK: - Sets and chains

extension SandboxRuleset {
    static let pinned4 = LookupSet(name: "pinned4", key: .address(.v4), isInterval: false)
    static let pinned6 = LookupSet(name: "pinned6", key: .address(.v6), isInterval: false)
    static let possible4 = LookupSet(name: "possible4", key: .address(.v4), isInterval: true)
    static let possible6 = LookupSet(name: "possible6", key: .address(.v6), isInterval: true)
    static let possibleUDP4 = LookupSet(name: "possible_udp4", key: .address(.v4), isInterval: true)
    static let possibleUDP6 = LookupSet(name: "possible_udp6", key: .address(.v6), isInterval: true)
    static let pinnedPorts = LookupSet(name: "pinned_ports", key: .port, isInterval: true)
    static let possiblePorts = LookupSet(name: "possible_ports", key: .port, isInterval: true)
    static let servedPorts = LookupSet(name: "served_ports", key: .port, isInterval: true)
    static let guesses = LookupSet(name: "guesses", key: .priority, isInterval: false, isDynamic: true)

    /// All sets.
    var sets: [LookupSet] {
        [
            Self.pinned4, Self.pinned6, Self.possible4, Self.possible6, Self.possibleUDP4, Self.possibleUDP6,
            Self.pinnedPorts, Self.possiblePorts, Self.servedPorts,
        ] + (upstream == nil ? [] : [Self.guesses])
    }

    static func pinned(_ family: IPAddress.Family) -> LookupSet { family == .v4 ? pinned4 : pinned6 }
    static func possible(_ family: IPAddress.Family) -> LookupSet { family == .v4 ? possible4 : possible6 }
    static func possibleUDP(_ family: IPAddress.Family) -> LookupSet { family == .v4 ? possibleUDP4 : possibleUDP6 }

    /// Before conntrack, at -200.
    static let rawOut = base("raw_out", .filter, .output, priority: -300, policy: .accept)
    /// Ahead of the usual -100, so that Docker's rules for its resolver at 127.0.0.11 come after ours.
    static let natOut = base("nat_out", .nat, .output, priority: -110, policy: .accept)
    static let out = base("out", .filter, .output, priority: 0, policy: .drop)
    static let forward = base("forward", .filter, .forward, priority: 0, policy: .drop)
    static let incoming = base("in", .filter, .input, priority: 0, policy: .drop)
    /// After every other chain.
    static let post = base("post", .filter, .postrouting, priority: 300, policy: .accept)
    static let refused = Chain(name: "refused", attachment: nil)
    /// Not of ``chains``: its rule is kept when the others are replaced.
    static let others = Chain(name: "others", attachment: nil)
    /// As ``others``.
    static let noted = Chain(name: "noted", attachment: nil)

    /// Whatever a table of any sandbox has.
    static let everyChain = [rawOut, refused, natOut, out, forward, incoming, post, others, noted]

    /// All chains; those that rules go to come first.
    var chains: [Chain] {
        (upstream == nil ? [] : [Self.rawOut]) + [
            Self.refused, Self.natOut, Self.out, Self.forward, Self.incoming, Self.post,
        ]
    }

    private static func base(
        _ name: String,
        _ kind: Chain.Attachment.Kind,
        _ hook: Chain.Attachment.Hook,
        priority: Int32,
        policy: Expression.Verdict
    ) -> Chain {
        Chain(name: name, attachment: .init(kind: kind, hook: hook, priority: priority, policy: policy))
    }
}

// MARK: - Rules

extension SandboxRuleset {
    /// Those whose rules depend on the door.
    static let guarded = [natOut, out, incoming]

    /// The rules of `chain`.
    func rules(of chain: Chain, door: Door) -> [Rule] {
        switch chain {
        case Self.rawOut: upstream.map(zoned) ?? []
        case Self.natOut: door == .open ? ownFlows + redirects : []
        case Self.out:
            (upstream.map(passing) ?? []) + (door == .open ? [] : closedListeners) + loopback
                + (door == .open ? redirected + [replying] : []) + outgoing
        case Self.refused: refusal
        case Self.forward: [Rule("counter", [.counter])]
        case Self.incoming:
            dockersAnswers + [askedDocker] + answers + impostors + [answered] + (door == .open ? served : []) + arriving
        default: (upstream.map(anonymous) ?? []) + [remaining] + bound + (fence.map(judged) ?? [])
        }
    }

    private func zoned(_ pass: UpstreamPass) -> [Rule] {
        let (guesses, priority) = (Self.guesses.name, "meta priority \(pass.priority)")
        return [
            // Whatever the mark, so that nothing is learned from it. What our own sockets send again later gets through.
            Rule(
                "\(priority) meta priority @\(guesses) counter drop",
                .priority(of: pass),
                [.lookup(set: guesses), .counter],
                .drop
            ),
            Rule(
                "\(priority) meta mark != \(pass.mark) "
                    + "update @\(guesses) { meta priority timeout \(Self.guessMilliseconds / 1_000)s } goto refused",
                .guessing(pass),
                [.meta(NFT_META_PRIORITY), .remember(set: guesses, milliseconds: Self.guessMilliseconds)],
                .goto(Self.refused)
            ),
            Rule("\(Self.text(pass)) ct original zone set \(Self.upstreamZone)", .from(pass), .markAsUpstream),
        ]
    }

    /// Not redirected to ourselves.
    private var ownFlows: [Rule] {
        guard upstream != nil else { return [] }
        return [Rule("ct original zone \(Self.upstreamZone) accept", .upstreamFlow, .accept)]
    }

    /// The flow and the packet must be ours: a reply that the other side's packet asks for is the kernel's, without a
    /// socket's mark, and goes out only in a flow that we began.
    private func passing(_ pass: UpstreamPass) -> [Rule] {
        askingDocker(pass) + [
            Rule(
                "oif != lo \(Self.text(pass)) ct original zone \(Self.upstreamZone) accept",
                .outputDevice(isLoopback: false),
                .from(pass),
                .upstreamFlow,
                .accept
            )
        ]
    }

    /// As ``passing``, to Docker's resolver: Docker's own programs answer there, which are no sandbox's. Over TCP, where it
    /// takes more than an address to answer in another's name.
    private func askingDocker(_ pass: UpstreamPass) -> [Rule] {
        guard asksDocker else { return [] }
        return [
            Rule(
                "oif lo \(Self.text(pass)) ct original zone \(Self.upstreamZone) ip daddr \(Self.docker) "
                    + "meta l4proto tcp accept",
                .outputDevice(isLoopback: true),
                .from(pass),
                .upstreamFlow,
                .destination(Self.docker),
                .protocolNumber(TransportProtocol.tcp.rawValue),
                .accept
            )
        ]
    }

    /// Both directions of that.
    private var dockersAnswers: [Rule] {
        guard upstream != nil, asksDocker else { return [] }
        return [("daddr", [Expression].destination), ("saddr", [Expression].source)].map { word, address in
            Rule(
                "iif lo ct original zone \(Self.upstreamZone) ip \(word) \(Self.docker) meta l4proto tcp accept",
                .inputDeviceIsLoopback,
                .upstreamFlow,
                address(Self.docker),
                .protocolNumber(TransportProtocol.tcp.rawValue),
                .accept
            )
        }
    }

    /// What our own flows are answered, from outside only: over loopback a program could answer in the server's name.
    private var answers: [Rule] {
        guard upstream != nil else { return [] }
        return [
            Rule(
                "iif lo ct original zone \(Self.upstreamZone) counter drop",
                .inputDeviceIsLoopback,
                .upstreamFlow,
                [.counter],
                .drop
            ),
            Rule(
                "iif != lo ct original zone \(Self.upstreamZone) ct state established,related accept",
                .inputDeviceIsOuter,
                .upstreamFlow,
                .answer,
                .accept
            ),
        ]
    }

    /// A connection from outside goes on from outside. Over loopback a program with CAP_NET_RAW could go on with it in the name
    /// of who began it: with one to the sidecar's API, for instance. Errors that `refused` makes are related, and pass.
    private var impostors: [Rule] {
        guard upstream != nil else { return [] }
        return [
            Rule(
                "iif lo ct mark \(Self.servedMark) ct state established counter drop",
                .inputDeviceIsLoopback,
                .served,
                .established,
                [.counter],
                .drop
            )
        ]
    }

    /// Where there is no fence: packet sockets see what leaves, its mark included, and come after this.
    private func anonymous(_ pass: UpstreamPass) -> [Rule] {
        [Rule("\(Self.text(pass)) meta mark set 0 meta priority set 0", .from(pass), .withoutPass)]
    }

    /// The last thing that becomes of a packet here: frames of packet sockets come by none of these chains, and have not
    /// this.
    private func judged(_ fence: UpstreamPass) -> [Rule] {
        [
            Rule(
                "oif != lo meta mark set \(fence.mark) meta priority set \(fence.priority)",
                .outputDevice(isLoopback: false),
                .give(fence)
            )
        ]
    }

    private static func text(_ pass: UpstreamPass) -> String { "meta mark \(pass.mark) meta priority \(pass.priority)" }

    /// DNS comes before the loopback: a resolver at a loopback address is answered by ours too.
    private var redirects: [Rule] {
        [
            Rule(
                "udp dport 53 redirect to :\(ports.dns)",
                .destinationPort(.udp, 53),
                .redirect(to: ports.dns)
            ),
            Rule(
                "tcp dport 53 redirect to :\(ports.dns)",
                .destinationPort(.tcp, 53),
                .redirect(to: ports.dns)
            ),
            Rule("ip daddr 127.0.0.0/8 return", .destination(Self.loopback4), .return),
            Rule("ip6 daddr ::1 return", .destination(Self.loopback6), .return),
        ]
            + [Self.pinned, Self.possible].flatMap { set in Self.families.map { toProxy($0, set($0)) } }
            + Self.families.map { toRelay($0, Self.pinned($0), ports: Self.pinnedPorts) }
            + Self.families.map { toRelay($0, Self.possibleUDP($0), ports: Self.possiblePorts) }
    }

    private func toProxy(_ family: IPAddress.Family, _ set: LookupSet) -> Rule {
        Rule(
            "meta l4proto tcp \(Self.header(family)) daddr @\(set.name) redirect to :\(ports.proxy)",
            .protocolNumber(TransportProtocol.tcp.rawValue),
            .destination(family, in: set),
            .redirect(to: ports.proxy)
        )
    }

    /// The port says more often than the address that no rule allows it: most policies open no UDP, or one port.
    private func toRelay(_ family: IPAddress.Family, _ set: LookupSet, ports allowed: LookupSet) -> Rule {
        Rule(
            "udp dport @\(allowed.name) \(Self.header(family)) daddr @\(set.name) redirect to :\(ports.datagrams)",
            .destinationPort(.udp, in: allowed),
            .destination(family, in: set),
            .redirect(to: ports.datagrams)
        )
    }

    /// What was redirected still has the device here that it would have left by.
    private var redirected: [Rule] {
        Self.loopbacks.flatMap { loopback in
            listeners.map { transport, port in
                Rule(
                    "ct status dnat \(Self.header(loopback.family)) daddr \(loopback) \(transport) dport \(port) accept",
                    .redirected,
                    .destination(IPPrefix(host: loopback)),
                    .destinationPort(transport, port),
                    .accept
                )
            }
        }
    }

    /// Behind a closed door our own listeners are out of reach as well, over loopback too.
    private var closedListeners: [Rule] {
        listeners.map { transport, port in
            Rule(
                "oif lo \(transport) dport \(port) goto refused",
                .outputDevice(isLoopback: true),
                .destinationPort(transport, port),
                .goto(Self.refused)
            )
        }
    }

    /// Only in the direction of replies, and only of connections that began with a packet from outside: an entry that
    /// a program's own packet made never lets anything out.
    private var replying: Rule {
        Rule(
            "oif != lo ct mark \(Self.servedMark) ct direction reply ct state established,related accept",
            .outputDevice(isLoopback: false),
            .served,
            .reply,
            .answer,
            .accept
        )
    }

    private var served: [Rule] {
        [
            Rule(
                "iif != lo ct mark \(Self.servedMark) ct state established,related accept",
                .inputDeviceIsOuter,
                .served,
                .answer,
                .accept
            ),
            Rule(
                "iif != lo ct state new tcp flags & (fin | syn | rst | ack) == syn tcp dport @served_ports "
                    + "ct mark set \(Self.servedMark) accept",
                .inputDeviceIsOuter,
                .new,
                .connectionBegins,
                .port(in: Self.servedPorts),
                .markAsServed,
                .accept
            ),
        ]
    }

    /// Frames that packet sockets put on the loopback for Docker's resolver come by no chain but this.
    private var askedDocker: Rule {
        Rule("ip daddr \(Self.docker) counter drop", .destination(Self.docker), [.counter], .drop)
    }

    /// Comes early: half of what goes over a redirected connection is our answers, which pass here.
    private var loopback: [Rule] {
        [
            // In user-defined networks Docker's own resolver listens in here, on ports to which Docker's rules lead from 53.
            // It asks outside from the engine's network for any name: a way out. What goes to port 53 was redirected.
            Rule("ip daddr \(Self.docker) goto refused", .destination(Self.docker), .goto(Self.refused)),
            // The errors that `refused` makes go this way too; without them connect() would hang.
            Rule("oif lo accept", .outputDevice(isLoopback: true), .accept),
        ]
    }

    private var outgoing: [Rule] {
        [
            // Neighbour discovery is the kernel's to do: what a program makes of it carries something.
            Rule(
                "meta l4proto ipv6-icmp meta skuid != 4294967295 goto refused",
                .protocolNumber(Self.icmpV6),
                .fromProgram,
                .goto(Self.refused)
            )
        ]
            + neighbourDiscovery(135, "nd-neighbor-solicit", to: Self.solicitedNodes)
            + neighbourDiscovery(136, "nd-neighbor-advert", to: Self.allNodes)
            + [
                // The kernel says by itself which groups it listens to and asks for routers; nobody tried anything.
                Rule("icmpv6 type 131-133 drop", .icmpV6(types: 131...133), .drop),
                Rule("icmpv6 type mld2-listener-report drop", .icmpV6(type: 143), .drop),
                Rule("goto refused", .goto(Self.refused)),
            ]
    }

    private func neighbourDiscovery(_ type: UInt8, _ name: String, to group: IPPrefix) -> [Rule] {
        let destinations =
            [group, .linkLocal6]
            + (gateways.map(IPPrefix.init(host:)) + onLink)
            .filter { $0.family == .v6 && !IPPrefix.linkLocal6.contains($0) }
        return destinations.map { destination in
            Rule(
                "icmpv6 type \(name) ip6 hoplimit 255 ip6 length <= 32 ip6 daddr \(destination) accept",
                .neighbourDiscovery(type: type),
                .destination(destination),
                .accept
            )
        }
    }

    private var refusal: [Rule] {
        let limit = refusalLimit
        return [
            Rule("counter", [.counter]),
            Rule(
                "limit rate \(limit.packetsPerSecond)/second burst \(limit.burst) packets "
                    + "log prefix \"\(Self.logPrefix)\" group \(nflogGroup) snaplen 128 queue-threshold 16",
                [
                    .limit(packetsPerSecond: limit.packetsPerSecond, burst: limit.burst),
                    .log(prefix: Self.logPrefix, group: nflogGroup, packetBytes: 128, threshold: 16),
                ]
            ),
            Rule(
                "meta l4proto tcp reject with tcp reset",
                .protocolNumber(TransportProtocol.tcp.rawValue),
                [.reject(.tcpReset)]
            ),
            Rule("reject with icmpx type admin-prohibited", [.reject(.adminProhibited)]),
        ]
    }

    /// Answers of our listeners carry the address that the program asked for.
    private var answered: Rule {
        Rule("iif lo ct state established,related accept", .inputDeviceIsLoopback, .answer, .accept)
    }

    private var arriving: [Rule] {
        [
            Rule("iif lo fib saddr type local accept", .inputDeviceIsLoopback, .fromLocalAddress, .accept),
            Rule(
                "icmpv6 type nd-neighbor-solicit ip6 hoplimit 255 ip6 length <= 32 accept",
                .neighbourDiscovery(type: 135),
                .accept
            ),
            Rule(
                "icmpv6 type nd-neighbor-advert ip6 hoplimit 255 ip6 length <= 32 accept",
                .neighbourDiscovery(type: 136),
                .accept
            ),
            Rule("counter", [.counter]),
        ]
    }

    /// What stays inside is looked at no further.
    private var remaining: Rule { Rule("oif lo accept", .outputDevice(isLoopback: true), .accept) }

    /// A socket bound to the outer device (SO_BINDTODEVICE) takes redirected packets there, payload and all.
    private var bound: [Rule] {
        [
            Rule(
                "ct status dnat oif != lo counter drop",
                .redirected,
                .outputDevice(isLoopback: false),
                [.counter],
                .drop
            ),
            Rule(
                "ip daddr 127.0.0.0/8 oif != lo counter drop",
                .destination(Self.loopback4),
                .outputDevice(isLoopback: false),
                [.counter],
                .drop
            ),
            Rule(
                "ip6 daddr ::1 oif != lo counter drop",
                .destination(Self.loopback6),
                .outputDevice(isLoopback: false),
                [.counter],
                .drop
            ),
        ]
    }

    /// Those with most packets first.
    private var listeners: [(TransportProtocol, UInt16)] {
        [(.tcp, ports.proxy), (.udp, ports.dns), (.udp, ports.datagrams), (.tcp, ports.dns)]
    }

    private static let families: [IPAddress.Family] = [.v4, .v6]

    private static func header(_ family: IPAddress.Family) -> String { family == .v4 ? "ip" : "ip6" }
}

// MARK: - Addresses

extension SandboxRuleset {
    private static let icmpV6: UInt8 = 58
    private static let loopbacks = [IPAddress(v4: 0x7f00_0001), IPAddress(v6: 1)]
    /// Docker's embedded resolver.
    private static let docker = IPPrefix(host: IPAddress(v4: 0x7f00_000b))
    private static let loopback4 = IPPrefix(IPAddress(v4: 0x7f00_0000), length: 8)
    private static let loopback6 = IPPrefix(host: IPAddress(v6: 1))
    /// ff02::1:ff00:0/104, RFC 4291 2.7.1.
    private static let solicitedNodes = IPPrefix(IPAddress(v6: 0xff02 << 112 | 0x1_ff00_0000), length: 104)
    /// ff02::1.
    private static let allNodes = IPPrefix(host: IPAddress(v6: 0xff02 << 112 | 1))
}
