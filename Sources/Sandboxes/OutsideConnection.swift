import EgressCore
import EgressPolicy
import Glibc
import NetPrimitives
import Reactor
import UpstreamDNS
import WireFormat

/// Connects to a server outside for the process itself, whatever the policy says of its name: asks the upstream servers for
/// its addresses, and dials them with the loop's ``UpstreamPass``. Nothing is pinned, so that nothing of it is open to
/// programs.
///
/// Lives until it has called its completion, whoever else holds it. Confined to its loop's thread.
final class OutsideConnection {
    /// Why there is none.
    struct Failure: Error, CustomStringConvertible {
        /// One clause.
        let description: String
    }

    /// Where it leads.
    struct Target: Sendable {
        /// A name or an address.
        let host: String
        let port: UInt16
        /// The operator's rules that hold for the process itself too: what they deny is not dialled.
        let deny: [Rule]
        /// How long it may take in all, in milliseconds.
        let timeoutMilliseconds: UInt64
    }

    private let target: Target
    private let loop: EventLoop
    private let upstream: UpstreamResolver
    private let deadline: MonotonicTime
    private var completion: ((Result<CInt, Failure>) -> Void)?
    private var queries: [UpstreamQuery] = []
    private var unanswered = 0
    private var addresses: [IPAddress] = []
    private var timer: TimerToken?
    private var generator = SystemRandomNumberGenerator()

    /// Begins. `completion` is called once, now or later: with a connected non-blocking socket that is the receiver's to
    /// close.
    init(
        _ target: Target,
        loop: EventLoop,
        upstream: UpstreamResolver,
        completion: @escaping (Result<CInt, Failure>) -> Void
    ) {
        self.target = target
        self.loop = loop
        self.upstream = upstream
        self.completion = completion
        deadline = loop.now.advanced(byNanoseconds: target.timeoutMilliseconds * 1_000_000)
        if let address = IPAddress(target.host) {
            addresses = [address]
            dial(nil)
        } else if let name = try? DomainName(target.host) {
            resolve(name)
        } else {
            finish(.failure(Failure(description: "\(target.host) is neither a name nor an address")))
        }
    }

    private func resolve(_ name: DomainName) {
        // A family whose answer does not come must not take the other one's time.
        let patience = target.timeoutMilliseconds * 1_000_000 / 2
        timer = loop.schedule(at: loop.now.advanced(byNanoseconds: patience)) { [self] in
            timer = nil
            guard addresses.isEmpty else { return dial(name) }
            finish(.failure(Failure(description: "no DNS server answered in time")))
        }
        unanswered = 2
        for type in [DNSRecordType.aaaa, .a] {
            let query = DNSUpstreamQuery(name, type, isDNSSECOK: false, using: &generator)
            queries.append(
                upstream.send(query.encode()) { [self] result in
                    if case .success(let bytes) = result {
                        addresses += (try? DNSAnswerSanitizer().sanitize(bytes, for: query))?.addresses ?? []
                    }
                    unanswered -= 1
                    if unanswered == 0 { dial(name) }
                }
            )
        }
    }

    private func dial(_ name: DomainName?) {
        guard completion != nil else { return }
        stopAsking()
        guard !addresses.isEmpty else {
            return finish(.failure(Failure(description: "\(target.host) has no address")))
        }
        let isNameDenied = name.map(isDenied) ?? false
        let endpoints = isNameDenied ? [] : addresses.filter(mayDial).map { Endpoint($0, target.port) }
        guard !endpoints.isEmpty else {
            return finish(.failure(Failure(description: "\(target.host) leads where nothing may be told")))
        }
        let left = deadline.nanoseconds - min(loop.now.nanoseconds, deadline.nanoseconds)
        _ = Connector(loop: loop, endpoints: endpoints, timeoutMilliseconds: left / 1_000_000) { [self] result in
            finish(result.mapError { Failure(description: "\($0)") })
        }
    }

    /// A sandbox in the same network could answer at a loopback address, and whoever names a server need not have a part
    /// in the machine's metadata service.
    private func mayDial(_ address: IPAddress) -> Bool {
        guard !Self.isNeverDialled(address) else { return false }
        let time = loop.wallTime()
        return !target.deny.contains { rule in
            guard case .addresses(let prefix) = rule.target, rule.expiresAt.map({ $0 > time }) ?? true else {
                return false
            }
            return prefix.contains(address) && rule.covers(target.port)
        }
    }

    private func isDenied(_ name: DomainName) -> Bool {
        let policy = CompiledPolicy(Policy(), always: AlwaysRules(deny: target.deny))
        let flow = Flow(name: name, address: nil, port: target.port, transport: .tcp)
        return policy.decide(flow, at: loop.wallTime()).reason == .rule
    }

    private static let neverDialled = [
        "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/128", "::1/128", "fe80::/10", "ff00::/8",
        // Metadata services that are not at link-local addresses: Alibaba Cloud, Azure, Oracle Cloud, AWS, Google Cloud.
        "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254",
    ].map { try! IPPrefix(parsing: $0) }

    /// Whether no server that can be told anything is there: this host, link-local addresses, those of many, and those of
    /// metadata services.
    static func isNeverDialled(_ address: IPAddress) -> Bool {
        ([address] + address.embeddedIPv4).contains { address in neverDialled.contains { $0.contains(address) } }
    }

    private func finish(_ result: Result<CInt, Failure>) {
        guard let completion else { return }
        self.completion = nil
        stopAsking()
        completion(result)
    }

    private func stopAsking() {
        if let timer { loop.cancel(timer) }
        timer = nil
        queries.forEach { $0.cancel() }
        queries = []
    }
}

extension Rule {
    fileprivate func covers(_ port: UInt16) -> Bool {
        (ports.isEmpty || ports.contains { $0.contains(port) }) && (transport ?? .tcp) == .tcp
    }
}
