import CLinux
import Glibc
public import NetPrimitives
import Reactor

/// Why a sandbox is not what it should be. It must not be used.
public enum SelfTestFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// A probe's own socket could not be used.
    case cannotProbe(String)
    /// A query to a DNS server outside was not answered by our resolver.
    case resolverSilent(Endpoint)
    /// A name that the policy denies was answered as others are: the response code and the number of records.
    case notDenied(code: UInt8, records: UInt16)
    /// A connection or datagram that must be refused was not.
    case notRefused(Endpoint, TransportProtocol, String)
    /// The kernel refused and did not tell.
    case notRecorded(Endpoint, TransportProtocol)
    /// Another process did the probing; this is its description of what it found.
    case reported(String)

    /// What was tried and what happened.
    public var description: String {
        switch self {
        case .cannotProbe(let problem):
            "self-test: \(problem)"
        case .resolverSilent(let server):
            "self-test: a DNS query to \(server) was not redirected to the resolver"
        case .notDenied(let code, let records):
            "self-test: a name that the policy denies was answered with code \(code) and \(records) records"
        case .notRefused(let endpoint, let transport, let outcome):
            "self-test: \(transport) to \(endpoint) was not refused: \(outcome)"
        case .notRecorded(let endpoint, let transport):
            "self-test: the kernel did not report that it refused \(transport) to \(endpoint)"
        case .reported(let description):
            description
        }
    }
}

/// What a newly made sandbox is tried with: queries that the redirect must catch, a name that the policy denies, and
/// destinations that it leaves closed, a cloud's metadata and our own API among them. Every other address is one for
/// documentation or a guard range, and nothing gets past the namespace anyway.
struct SelfTestProbes: Sendable {
    /// Tries probes in a sandbox's namespace; returns what the kernel has to tell of having refused.
    typealias Attempt = @Sendable (SelfTestProbes) throws -> Set<Refusal>

    /// Somebody else's DNS servers.
    let servers: [Endpoint]
    /// Where nothing may go; none for a family in which the policy closes no candidate.
    let refusals: [Refusal]
    /// Whether the policy denies ``name``.
    let deniesName: Bool

    /// Something that the kernel must refuse, and must report.
    struct Refusal: Hashable {
        let endpoint: Endpoint
        let transport: TransportProtocol
    }

    /// Whether a family may have no route. In a network that is not of our making that is its owner's choice, and
    /// nothing leaves over it.
    var toleratesMissingRoutes = false

    private static let documentation = [IPAddress("192.0.2.53")!, IPAddress("2001:db8::53")!]

    /// Of a domain for documentation (RFC 6761 6.5).
    static let name = try! DomainName("self-test.sandgate.example")
    /// Where clouds answer whoever asks with credentials of the machine.
    private static let metadata = ["169.254.169.254", "fd00:ec2::254"].map { Endpoint(IPAddress($0)!, 80) }

    /// - Parameter control: where our own API is served over TCP.
    init(refused isRefused: (IPAddress) -> Bool, deniesName: Bool, control: [Endpoint] = []) {
        servers = Self.documentation.map { Endpoint($0, 53) }
        self.deniesName = deniesName
        let candidates = [
            ["192.0.2.1", "198.51.100.1", "10.0.0.1", "240.0.0.1"],
            ["2001:db8::1", "fec0::1", "100::1"],
        ]
        let refused = candidates.compactMap { texts in
            texts.lazy.map { IPAddress($0)! }.first(where: isRefused).map { Endpoint($0, 9) }
        }
        let overBoth = (refused + Self.metadata.filter { isRefused($0.address) }).flatMap { endpoint in
            TransportProtocol.allCases.map { Refusal(endpoint: endpoint, transport: $0) }
        }
        let overTCP = control.filter { isRefused($0.address) }.map { Refusal(endpoint: $0, transport: .tcp) }
        refusals = overBoth + overTCP
    }

    /// Tries everything, in the calling thread's namespace; blocks for at most a few seconds. Returns what the kernel
    /// refused, and has to tell of.
    func probe() throws(SelfTestFailure) -> Set<Refusal> {
        for server in servers {
            try probeResolver(server, SOCK_DGRAM)
            try probeResolver(server, SOCK_STREAM)
        }
        if deniesName { try probeName() }
        var refused: Set<Refusal> = []
        for refusal in refusals where try isRefused(refusal) { refused.insert(refusal) }
        return refused
    }
}

// MARK: - For another process

extension SelfTestProbes {
    /// The refusals, one a line: `6 192.0.2.1:9`, and the name if it is denied. The servers are always the same.
    var encoded: String {
        (refusals.map { "\($0.transport.rawValue) \($0.endpoint)" } + (deniesName ? ["\(Self.name)"] : []))
            .joined(separator: "\n")
    }

    /// `nil` when malformed.
    init?(encoded: String) {
        servers = Self.documentation.map { Endpoint($0, 53) }
        var refusals: [Refusal] = []
        let (lines, name) = (encoded.split(separator: "\n"), "\(Self.name)")
        deniesName = lines.contains { $0 == name }
        for line in lines where line != name {
            let fields = line.split(separator: " ").map(String.init)
            guard fields.count == 2, let transport = UInt8(fields[0]).flatMap(TransportProtocol.init(rawValue:)),
                let endpoint = Endpoint(parsing: fields[1], defaultPort: 9)
            else { return nil }
            refusals.append(Refusal(endpoint: endpoint, transport: transport))
        }
        self.refusals = refusals
    }
}

// MARK: - Probing

extension SelfTestProbes {
    /// A query of class CHAOS: whatever the policy, the resolver answers it by itself.
    private static let query: [UInt8] =
        [0x5a, 0x47, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0] + [9] + Array("self-test".utf8) + [0, 0, 16, 0, 3]

    private func probeResolver(_ server: Endpoint, _ type: __socket_type) throws(SelfTestFailure) {
        let probe = try ProbeSocket(server.address.family, type)
        let outcome = probe.connect(to: server)
        if lacksRoute(outcome) { return }
        guard outcome == 0, probe.answer(to: Self.query, isStream: type == SOCK_STREAM) != nil else {
            throw .resolverSilent(server)
        }
    }

    /// IN A.
    private static let nameQuery: [UInt8] =
        [0x5a, 0x48, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]
        + "\(name)".split(separator: ".").flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) } + [0, 0, 1, 0, 1]

    /// Over loopback, which is there in every network: what goes to port 53 is redirected there too.
    private func probeName() throws(SelfTestFailure) {
        let server = Endpoint(IPAddress(v4: 0x7f00_0001), 53)
        let probe = try ProbeSocket(.v4, SOCK_DGRAM)
        guard probe.connect(to: server) == 0, let reply = probe.answer(to: Self.nameQuery, isStream: false) else {
            throw .resolverSilent(server)
        }
        let (code, records) = (reply[3] & 0xf, UInt16(reply[6]) << 8 | UInt16(reply[7]))
        if code == 0 || records > 0 { throw .notDenied(code: code, records: records) }
    }

    private func lacksRoute(_ outcome: CInt) -> Bool {
        toleratesMissingRoutes && [ENETUNREACH, EADDRNOTAVAIL, EAFNOSUPPORT].contains(outcome)
    }

    /// Throws when it went through. `false` where there was no way to go.
    private func isRefused(_ refusal: Refusal) throws(SelfTestFailure) -> Bool {
        let (endpoint, transport) = (refusal.endpoint, refusal.transport)
        let probe = try ProbeSocket(endpoint.address.family, transport == .tcp ? SOCK_STREAM : SOCK_DGRAM)
        var outcome = probe.connect(to: endpoint)
        if outcome == 0, transport == .udp { outcome = probe.send([0]) }
        if lacksRoute(outcome) { return false }
        let expected = transport == .tcp ? [ECONNREFUSED] : [EPERM]
        guard expected.contains(outcome) else {
            throw .notRefused(
                endpoint,
                transport,
                outcome == 0 ? "it went through" : String(cString: strerror(outcome))
            )
        }
        return true
    }
}

/// A blocking socket whose calls give up after two seconds.
private struct ProbeSocket: ~Copyable {
    private let descriptor: CInt
    private static let patienceSeconds = 2

    init(_ family: IPAddress.Family, _ type: __socket_type) throws(SelfTestFailure) {
        descriptor = socket(family == .v4 ? AF_INET : AF_INET6, CInt(type.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw .cannotProbe("cannot open a socket: " + String(cString: strerror(errno))) }
        var patience = timeval(tv_sec: Self.patienceSeconds, tv_usec: 0)
        let size = socklen_t(MemoryLayout<timeval>.size)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, size)
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, size)
    }

    deinit { close(descriptor) }

    /// 0, or the error number.
    func connect(to endpoint: Endpoint) -> CInt {
        Sockets.connect(descriptor, to: endpoint)
    }

    /// 0, or the error number.
    func send(_ bytes: [UInt8]) -> CInt {
        Glibc.send(descriptor, bytes, bytes.count, CInt(MSG_NOSIGNAL)) == bytes.count ? 0 : errno
    }

    /// Asks a DNS server that it is connected to. The answer, or as much of it as came, its header at least; `nil` when none
    /// did.
    func answer(to query: [UInt8], isStream: Bool) -> [UInt8]? {
        // RFC 1035 4.2.2: over TCP a message has its length before it.
        let length: [UInt8] = isStream ? [0, UInt8(query.count)] : []
        guard send(length + query) == 0 else { return nil }
        let answer = Array(receive(atLeast: length.count + 12).dropFirst(length.count))
        return answer.count >= 12 && answer.starts(with: query.prefix(2)) ? answer : nil
    }

    /// What came before patience ended; fewer bytes when the other side ended.
    private func receive(atLeast count: Int) -> [UInt8] {
        var received: [UInt8] = []
        while received.count < count {
            var chunk = [UInt8](repeating: 0, count: 512)
            let length = recv(descriptor, &chunk, chunk.count, 0)
            guard length > 0 else { break }
            received += chunk.prefix(length)
        }
        return received
    }
}
