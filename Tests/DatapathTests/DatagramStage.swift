import EgressCore
import EgressPolicy
import Foundation
import Namespaces
import NetPrimitives
import Nftables
import Reactor
import Testing

@testable import Datapath

/// A sandbox network with nothing but its datagram relay, and an outside with servers that answer. The whole stage is
/// inside the outside's namespace; programs run on a thread of their own inside the sandbox's.
final class DatagramStage {
    static let outside = [IPAddress("198.51.100.9")!, IPAddress("2001:db8:9::9")!]
    private static let ports = ListenerPorts(dns: 64_053, proxy: 64_128, datagrams: 64_117)

    let loop: EventLoop
    let network: SandboxNetwork
    let attachment: Datapath.Attachment
    private let log: EventLog
    private var listeners: [DatagramListener] = []

    /// Runs `body` with a stage whose policy is `policy`.
    static func with(
        _ policy: Policy,
        nodeAddresses: [IPAddress] = [],
        limits: Datapath.Attachment.Limits = .init(),
        _ body: (DatagramStage) throws -> Void
    ) throws {
        try NetworkNamespace.anonymous().enter {
            let addresses = outside.map { "ip address add \($0) dev lo" }.joined(separator: " && ")
            try shell("ip link set lo up && \(addresses)")
            try body(DatagramStage(CompiledPolicy(policy, nodeAddresses: nodeAddresses), limits))
        }
    }

    private init(_ policy: CompiledPolicy, _ limits: Datapath.Attachment.Limits) throws {
        let loop = try EventLoop()
        let network = try SandboxNetwork.make()
        let (table, conntrack) = try network.namespace.enter {
            let table = SandboxTable(netlink: try NetlinkSocket(), ports: Self.ports, nflogGroup: 64)
            try table.closeDoor()
            return (table, Conntrack(socket: try NetlinkSocket()))
        }
        let log = EventLog()
        attachment = try Datapath.Attachment(
            id: "stage",
            loop: loop,
            kernel: table,
            policy: policy,
            limits: limits,
            record: { log.events.append($0) }
        )
        for address in [IPAddress("127.0.0.1")!, IPAddress("::1")!] {
            let descriptors = try network.namespace.enter {
                DatagramListener.Descriptors(
                    datagrams: try Sockets.udpSocket(Endpoint(address, Self.ports.datagrams)),
                    icmp: try Sockets.icmpSocket(from: address)
                )
            }
            listeners.append(try DatagramListener(attachment, conntrack: conntrack, descriptors: descriptors))
        }
        try table.installRedirects()
        (self.loop, self.network, self.log) = (loop, network, log)
    }

    private final class EventLog {
        var events: [AuditEvent] = []
    }

    deinit {
        attachment.stop()
        listeners.forEach { $0.stop() }
    }

    /// What was recorded of one kind.
    func events(_ kind: AuditEvent.Kind) -> [AuditEvent] { log.events.filter { $0.kind == kind } }

    /// Runs `program` inside the network while the loop serves it.
    @discardableResult
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

    /// Serves for some time.
    func serve(milliseconds: UInt64) throws {
        // The loop's clock stands still while it does not run.
        self.loop.schedule(at: loop.now) { [loop] in
            loop.schedule(at: loop.now.advanced(byNanoseconds: milliseconds * 1_000_000)) { loop.stop() }
        }
        try loop.run()
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

/// A server outside that sends everything back, or nothing.
final class DatagramServer: EventSource {
    let endpoint: Endpoint
    /// What arrived, in order.
    private(set) var arrived: [String] = []
    /// Where from.
    private(set) var peers: [Endpoint] = []
    var isSilent = false
    private let loop: EventLoop
    private let descriptor: CInt

    init(_ stage: DatagramStage, _ address: IPAddress = DatagramStage.outside[0], port: UInt16 = 4_444) throws {
        loop = stage.loop
        endpoint = Endpoint(address, port)
        descriptor = try Sockets.udpSocket(endpoint)
        super.init()
        try loop.register(self, descriptor: descriptor, interest: .readable)
    }

    func close() {
        loop.deregister(self)
        Sockets.close(descriptor)
    }

    /// Sends something that nobody asked for.
    func send(_ text: String, to peer: Endpoint) {
        _ = Sockets.sendDatagram(descriptor, Array(text.utf8), to: peer)
    }

    override func handle(_ readiness: Readiness) {
        while case .datagram(let message, let source) = Sockets.receiveDatagram(descriptor, upTo: 65_535) {
            arrived.append(String(decoding: message, as: UTF8.self))
            peers.append(source)
            if !isSilent { _ = Sockets.sendDatagram(descriptor, message, to: source) }
        }
    }
}

/// A program's socket between two runs: one thread at a time has it.
final class ProgramSocket: @unchecked Sendable {
    private let socket: BlockingSocket

    init(to endpoint: Endpoint, seconds: Int = 2) throws {
        socket = try BlockingSocket(.datagram, to: endpoint, seconds: seconds)
    }

    /// Sends and returns what comes back.
    func ask(_ text: String) throws -> String {
        try socket.send(Array(text.utf8))
        return try receive()
    }

    func receive() throws -> String {
        String(decoding: try socket.receive(upTo: 65_535), as: UTF8.self)
    }

    func send(_ text: String) throws {
        try socket.send(Array(text.utf8))
    }
}
