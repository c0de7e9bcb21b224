import EgressCore
import EgressPolicy
import Foundation
import Glibc
import Namespaces
import NetPrimitives
import Nftables
import Reactor
import Testing
import UpstreamDNS
import WireFormat

@testable import Datapath

/// A sandbox network with nothing but its resolver, and a DNS server outside that answers as it is told to. Programs
/// run on a thread of their own inside the network; everything else is the event loop's, which is the test's thread.
final class ResolverStage {
    let loop: EventLoop
    let network: SandboxNetwork
    let table: SandboxTable
    let attachment: Datapath.Attachment
    let resolver: DNSResolver
    let server: ServerDouble
    private let log: EventLog
    private var listeners: [DNSListener] = []
    private static let ports = ListenerPorts(dns: 64_053, proxy: 64_128, datagrams: 64_117)

    init(_ policy: Policy, limits: DNSResolver.Limits = .init()) throws {
        let loop = try EventLoop()
        let network = try SandboxNetwork.make()
        let table = try network.namespace.enter {
            let table = SandboxTable(
                netlink: try NetlinkSocket(),
                ports: Self.ports,
                nflogGroup: 64,
                gateways: [SandboxNetwork.Plan.gateway4, SandboxNetwork.Plan.gateway6]
            )
            try table.closeDoor()
            return table
        }
        let server = try ServerDouble(loop: loop)
        let log = EventLog()
        var bounds = Datapath.Attachment.Limits()
        bounds.queries = limits
        let attachment = try Datapath.Attachment(
            id: "stage",
            loop: loop,
            kernel: table,
            policy: CompiledPolicy(policy),
            limits: bounds,
            record: { log.events.append($0) }
        )
        let upstream = try UpstreamResolver(
            loop: loop,
            servers: [server.endpoint],
            timeoutMilliseconds: 300,
            tries: 1
        )
        let resolver = DNSResolver(attachment: attachment, upstream: upstream)
        for address in [IPAddress("127.0.0.1")!, IPAddress("::1")!] {
            let endpoint = Endpoint(address, Self.ports.dns)
            let (udp, tcp) = try network.namespace.enter {
                (try Sockets.udpSocket(endpoint), try Sockets.tcpListener(endpoint))
            }
            listeners.append(try DNSListener(attachment: attachment, resolver: resolver, udp: udp, tcp: tcp))
        }
        try table.installRedirects()
        (self.loop, self.network, self.table, self.server) = (loop, network, table, server)
        (self.attachment, self.resolver) = (attachment, resolver)
        self.log = log
    }

    private final class EventLog {
        var events: [AuditEvent] = []
    }

    deinit {
        listeners.forEach { $0.stop() }
        attachment.stop()
        server.close()
    }

    /// What was recorded, as kind, name and reason.
    var records: [String] {
        log.events.map { "\($0.kind.rawValue) \($0.host ?? "-") \($0.verdict?.reason.rawValue ?? "-")" }
    }

    /// Runs `program` inside the network while the loop serves it.
    func run<Result: Sendable>(_ program: @escaping @Sendable () throws -> Result) throws -> Result {
        let outcome = Outcome<Result>()
        let (namespace, mailbox, loop) = (network.namespace, loop.mailbox, Confined(loop))
        Thread.detachNewThread {
            outcome.value = Swift.Result { try namespace.enter(program) }
            mailbox.post { loop.value.stop() }
        }
        let deadline = self.loop.schedule(at: self.loop.now.advanced(bySeconds: 20)) { loop.value.stop() }
        try self.loop.run()
        self.loop.cancel(deadline)
        return try #require(outcome.value).get()
    }

    /// Runs the loop until `condition` holds, for at most five seconds.
    func serve(until condition: () -> Bool) throws {
        for _ in 0..<500 where !condition() {
            self.loop.schedule(at: loop.now.advanced(byNanoseconds: 10_000_000)) { [loop] in loop.stop() }
            try loop.run()
        }
        #expect(condition())
    }

    /// Written before the loop is told to stop, read after it has stopped.
    private final class Outcome<Value>: @unchecked Sendable {
        var value: Result<Value, any Error>?
    }

    /// Passed through another thread, used on the loop's alone.
    private struct Confined<Value>: @unchecked Sendable {
        let value: Value
        init(_ value: Value) { self.value = value }
    }
}

/// A DNS server outside the sandbox.
final class ServerDouble: EventSource {
    let endpoint: Endpoint
    /// What it was asked, in order: name and type.
    private(set) var asked: [String] = []
    /// What it answers; `nil` for silence.
    var answer: (DNSQuery) -> DNSResponse? = { _ in nil }
    private let loop: EventLoop
    private let descriptor: CInt

    init(loop: EventLoop) throws {
        self.loop = loop
        descriptor = try Sockets.udpSocket(Endpoint(IPAddress("127.0.0.1")!, 0))
        endpoint = try #require(Sockets.localEndpoint(descriptor))
        super.init()
        try loop.register(self, descriptor: descriptor, interest: .readable)
    }

    func close() {
        loop.deregister(self)
        Sockets.close(descriptor)
    }

    override func handle(_ readiness: Readiness) {
        while case .datagram(let message, let source) = Sockets.receiveDatagram(descriptor, upTo: 4_096) {
            guard let query = try? DNSQuery(parsing: message), let name = try? query.name.get() else {
                Issue.record("the resolver sent a malformed query")
                continue
            }
            asked.append("\(name) \(query.type)")
            guard let response = answer(query) else { continue }
            _ = Sockets.sendDatagram(descriptor, response.encode(for: query, over: .udp), to: source)
        }
    }

    /// Answers every address question with these addresses of its family.
    func answerAddresses(_ addresses: String..., ttl: UInt32 = 300) {
        let addresses = addresses.map { IPAddress($0)! }
        answer = { query in
            let family: IPAddress.Family = query.type == .aaaa ? .v6 : .v4
            let records = addresses.filter { $0.family == family && [.a, .aaaa].contains(query.type) }.map {
                DNSResourceRecord(query.wireName.folded, query.type, ttl: ttl, data: $0.networkBytes)
            }
            return DNSResponse(.noError, answers: records)
        }
    }
}
