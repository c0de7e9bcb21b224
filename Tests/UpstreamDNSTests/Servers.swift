import Glibc
import NetPrimitives
import Reactor
import Testing
import UpstreamDNS

let loopback = IPAddress(v4: 0x7f00_0001)

/// A port that nobody listens on.
let deadEndpoint = Endpoint(loopback, 1)

/// An endpoint that is free for UDP and TCP, below the range that the kernel takes source ports from.
func freeEndpoint() throws -> Endpoint {
    for _ in 0..<100 {
        let endpoint = Endpoint(loopback, .random(in: 20_000..<30_000))
        guard let udp = try? Sockets.udpSocket(endpoint) else { continue }
        defer { Sockets.close(udp) }
        guard let tcp = try? Sockets.tcpListener(endpoint) else { continue }
        Sockets.close(tcp)
        return endpoint
    }
    throw SystemError(operation: "find", errno: EADDRINUSE, context: "a free port")
}

extension EventLoop {
    /// Runs until `condition` holds, at most for `seconds`; whether it held.
    func run(seconds: UInt64 = 20, until condition: @escaping () -> Bool) throws -> Bool {
        let start = try clockReading()
        func look() {
            if condition() || now >= start.advanced(bySeconds: seconds) { return stop() }
            schedule(at: now.advanced(byNanoseconds: 1_000_000)) { look() }
        }
        look()
        try run()
        return condition()
    }

    /// A loop's `now` is old until it runs.
    private func clockReading() throws -> MonotonicTime {
        schedule(at: now) { self.stop() }
        try run()
        return now
    }
}

/// A server whose every answer the test makes, over UDP and TCP, in the test's own loop.
final class ScriptedServer {
    struct Query {
        let bytes: [UInt8]
        let from: Endpoint
        let isTCP: Bool
    }

    let endpoint: Endpoint
    private(set) var queries: [Query] = []
    /// The answers to a query, in order; none to be silent.
    var answer: (Query) -> [[UInt8]] = { _ in [] }

    private let loop: EventLoop
    private let datagrams: Reader
    private var listener: Listener?
    private var connections: [Reader] = []

    init(_ loop: EventLoop) throws {
        self.loop = loop
        endpoint = try freeEndpoint()
        datagrams = Reader(try Sockets.udpSocket(endpoint))
        listener = try Listener(loop: loop, descriptor: Sockets.tcpListener(endpoint)) { [weak self] descriptor, from in
            self?.serve(descriptor, from)
        }
        datagrams.onReadable = { [weak self] descriptor in
            while case .datagram(let bytes, let from) = Sockets.receiveDatagram(descriptor, upTo: 4_096) {
                for reply in self?.reply(Query(bytes: bytes, from: from, isTCP: false)) ?? [] {
                    _ = Sockets.sendDatagram(descriptor, reply, to: from)
                }
            }
        }
        try loop.register(datagrams, descriptor: datagrams.descriptor, interest: .readable)
    }

    deinit {
        listener?.close()
        for reader in connections + [datagrams] {
            loop.deregister(reader)
            Sockets.close(reader.descriptor)
        }
    }

    private func reply(_ query: Query) -> [[UInt8]] {
        queries.append(query)
        return answer(query)
    }

    private func serve(_ descriptor: CInt, _ from: Endpoint) {
        let reader = Reader(descriptor)
        var received: [UInt8] = []
        reader.onReadable = { [weak self, weak reader] descriptor in
            guard case .bytes(let bytes) = Sockets.receive(descriptor, upTo: 4_096) else {
                if let self, let reader { loop.deregister(reader) }
                return
            }
            received += bytes
            guard received.count >= 2, received.count >= 2 + Int(received[0]) << 8 + Int(received[1]) else { return }
            for reply in self?.reply(Query(bytes: Array(received[2...]), from: from, isTCP: true)) ?? [] {
                _ = Sockets.send(descriptor, (Messages.number(UInt16(reply.count)) + reply)[...])
            }
        }
        connections.append(reader)
        try? loop.register(reader, descriptor: descriptor, interest: .readable)
    }

    private final class Reader: EventSource {
        let descriptor: CInt
        var onReadable: (CInt) -> Void = { _ in }
        init(_ descriptor: CInt) { self.descriptor = descriptor }
        override func handle(_ readiness: Readiness) { onReadable(descriptor) }
    }
}

/// A dnsmasq of our own that knows a few names of `.test`.
final class Dnsmasq {
    static let path = "/usr/sbin/dnsmasq"
    static var isInstalled: Bool { access(path, X_OK) == 0 }

    let endpoint: Endpoint
    private var pid = pid_t()

    init() throws {
        endpoint = try freeEndpoint()
        let strings = (1...12).map { "\($0)" + String(repeating: "x", count: 200) }.joined(separator: ",")
        let arguments = [
            Self.path, "--no-daemon", "--conf-file=/dev/null", "--pid-file=", "--no-resolv", "--no-hosts", "--user=",
            "--log-facility=/dev/null", "--listen-address=\(endpoint.address)", "--bind-interfaces",
            "--port=\(endpoint.port)", "--local=/test/", "--host-record=answer.test,192.0.2.7",
            "--txt-record=large.test,\(strings)",
        ]
        let pointers = arguments.map { strdup($0) } + [nil]
        defer { pointers.forEach { free($0) } }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        for descriptor in 0...2 as ClosedRange<CInt> {
            posix_spawn_file_actions_addopen(&actions, descriptor, "/dev/null", O_RDWR, 0)
        }
        let status = posix_spawn(&pid, Self.path, &actions, nil, pointers, environ)
        guard status == 0 else { throw SystemError(operation: "start", errno: status, context: Self.path) }
    }

    /// Asks until it answers.
    func waitUntilReady(_ loop: EventLoop, _ resolver: UpstreamResolver) throws {
        var isReady = false
        func ask() {
            resolver.send(Messages.query("answer.test")) { result in
                if case .success = result { return isReady = true }
                loop.schedule(at: loop.now.advanced(byNanoseconds: 20_000_000)) { ask() }
            }
        }
        ask()
        try #require(try loop.run { isReady })
    }

    deinit {
        // Not SIGTERM: it would inherit the signal mask of the test's thread, where that is blocked.
        kill(pid, SIGKILL)
        waitpid(pid, nil, 0)
    }
}
