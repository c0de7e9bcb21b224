import Glibc
import NetPrimitives
import Reactor
import Testing

/// One end of a TCP connection in the tests' own hands: says what it is told to, and keeps or counts what it hears.
final class Peer: EventSource {
    enum Ending: Equatable {
        case ended
        case failed(CInt)
    }

    let loop: EventLoop
    private(set) var descriptor: CInt
    /// What it heard, unless it only counts.
    private(set) var heard: [UInt8] = []
    private(set) var heardCount = 0
    /// FNV-1a over what it heard.
    private(set) var checksum = Checksum()
    private(set) var ending: Ending?
    private(set) var sentCount = 0
    private(set) var isOutputBlocked = false
    var keepsBytes = true
    var isReading = true {
        didSet { if isReading { read() } }
    }
    private var output: ArraySlice<UInt8> = []
    private var produce: (() -> [UInt8]?)?
    private var endsAfterOutput = false

    init(_ descriptor: CInt, loop: EventLoop) throws {
        self.descriptor = descriptor
        self.loop = loop
        super.init()
        try loop.register(self, descriptor: descriptor, interest: [.readable, .writable], edgeTriggered: true)
    }

    deinit { precondition(descriptor < 0, "a peer must be closed") }

    func say(_ bytes: [UInt8], thenEnd: Bool = false) {
        output.append(contentsOf: bytes)
        endsAfterOutput = thenEnd
        write()
    }

    /// Says what `producer` makes until it makes nothing more.
    func say(thenEnd: Bool = true, _ producer: @escaping () -> [UInt8]?) {
        produce = producer
        endsAfterOutput = thenEnd
        write()
    }

    func close() {
        guard descriptor >= 0 else { return }
        loop.deregister(self)
        Sockets.close(descriptor)
        descriptor = -1
    }

    func reset() {
        guard descriptor >= 0 else { return }
        loop.deregister(self)
        Sockets.reset(descriptor)
        descriptor = -1
    }

    override func handle(_ readiness: Readiness) {
        if isReading { read() }
        if descriptor >= 0 { write() }
    }

    private func read() {
        while isReading, ending == nil, descriptor >= 0 {
            switch Sockets.receive(descriptor, upTo: 64 * 1024) {
            case .bytes(let bytes):
                heardCount += bytes.count
                checksum.add(bytes)
                if keepsBytes { heard += bytes }
            case .wouldBlock: return
            case .ended: ending = .ended
            case .failed(let code): ending = .failed(code)
            }
        }
    }

    private func write() {
        isOutputBlocked = false
        while true {
            if output.isEmpty, let more = produce?() { output = more[...] }
            if output.isEmpty { break }
            switch Sockets.send(descriptor, output) {
            case .bytes(let count):
                output = output.dropFirst(count)
                sentCount += count
            case .wouldBlock:
                isOutputBlocked = true
                return
            case .ended: return
            case .failed(let code):
                if ending == nil { ending = .failed(code) }
                return
            }
        }
        if endsAfterOutput {
            endsAfterOutput = false
            Sockets.endOutput(descriptor)
        }
    }
}

/// FNV-1a, word by word: enough to notice a byte lost, added, changed or out of place.
struct Checksum: Equatable {
    private var value: UInt64 = 0xcbf2_9ce4_8422_2325

    mutating func add(_ bytes: [UInt8]) {
        bytes.withUnsafeBufferPointer { buffer in
            var value = value
            for byte in buffer { value = (value ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }
            self.value = value
        }
    }
}

/// A reproducible stream of bytes in blocks.
struct ByteStream {
    private var state: UInt64
    private(set) var remaining: Int
    private(set) var checksum = Checksum()

    init(seed: UInt64, count: Int) {
        state = seed
        remaining = count
    }

    mutating func next(_ size: Int = 256 * 1024) -> [UInt8]? {
        guard remaining > 0 else { return nil }
        let count = min(size, remaining)
        let block = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            var state = state
            for index in 0..<count {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                buffer[index] = UInt8(truncatingIfNeeded: state >> 56)
            }
            self.state = state
            initialized = count
        }
        remaining -= count
        checksum.add(block)
        return block
    }
}

let loopback = IPAddress(v4: 0x7f00_0001)

/// Two ends of a new TCP connection over loopback, both non-blocking and registered with no loop.
func tcpPair(_ address: IPAddress = loopback) throws -> (CInt, CInt) {
    let listener = try Sockets.tcpListener(Endpoint(address, 0))
    defer { Sockets.close(listener) }
    let endpoint = try #require(Sockets.localEndpoint(listener))
    let loop = try EventLoop()
    var near: CInt = -1
    _ = Connector(loop: loop, endpoints: [endpoint], timeoutMilliseconds: 5_000) { result in
        if case .success(let descriptor) = result { near = descriptor }
    }
    try #require(try loop.run(until: { near >= 0 }))
    guard case .accepted(let far, _) = Sockets.accept(listener) else { throw Problem("nothing to accept") }
    return (near, far)
}

struct Problem: Error {
    let text: String
    init(_ text: String) { self.text = text }
}

extension EventLoop {
    /// Runs until `condition` holds, at most for `seconds`; whether it held.
    func run(seconds: UInt64 = 20, until condition: @escaping () -> Bool) throws -> Bool {
        if condition() { return true }
        let watch = Watch(self, condition, seconds: seconds)
        watch.look()
        try run()
        return condition()
    }

    private final class Watch {
        private let loop: EventLoop
        private let condition: () -> Bool
        private let deadline: MonotonicTime

        init(_ loop: EventLoop, _ condition: @escaping () -> Bool, seconds: UInt64) {
            self.loop = loop
            self.condition = condition
            var time = timespec()
            clock_gettime(CLOCK_MONOTONIC, &time)
            deadline = MonotonicTime(nanoseconds: UInt64(time.tv_sec) * 1_000_000_000).advanced(bySeconds: seconds + 1)
        }

        func look() {
            if condition() || loop.now >= deadline { return loop.stop() }
            loop.schedule(at: loop.now.advanced(byNanoseconds: 1_000_000)) { self.look() }
        }
    }
}
