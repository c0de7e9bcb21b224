import Glibc
import Reactor

/// A connected socket with bounded buffers on both sides, for traffic that is read rather than relayed: cleartext HTTP.
/// What nobody takes stays in the kernel, which is the back-pressure. Edge-triggered: a level-triggered registration
/// would report a hang-up again and again while its owner still waits for the other side.
final class BufferedSocket: EventSource {
    /// No more is read while this many bytes wait to be taken.
    static let inputLimit = 64 * 1024
    /// The owner should stop producing while this many bytes wait to be sent.
    static let outputLimit = 64 * 1024
    private static let readSize = 16 * 1024

    /// Bytes read and not yet taken.
    private(set) var input: [UInt8] = []
    /// Whether the peer has ended its side and everything it sent was read.
    private(set) var hasEnded = false
    /// Whether the connection is broken or closed; nothing more will come or go.
    private(set) var isBroken = false
    /// Whether the peer takes no more; what is sent is dropped. What it said before can still be read.
    private(set) var isOutputBroken = false
    /// Bytes that the kernel took so far.
    private(set) var bytesSent: UInt64 = 0
    /// Called after every event of the descriptor.
    var onProgress: () -> Void = {}

    private let loop: EventLoop
    private var descriptor: CInt
    private var output: [UInt8] = []
    private var outputStart = 0
    /// Whether the peer had ended its side in order before it took no more.
    private var hadEndedBeforeBreak = false

    /// Takes ownership of `descriptor`, a non-blocking socket that is registered with no loop; on an error it stays the
    /// caller's.
    init(_ descriptor: CInt, loop: EventLoop) throws(SystemError) {
        self.descriptor = descriptor
        self.loop = loop
        super.init()
        Sockets.setNoDelay(descriptor)
        do {
            try loop.register(self, descriptor: descriptor, interest: [.readable, .writable], edgeTriggered: true)
        } catch {
            self.descriptor = -1
            throw error
        }
    }

    deinit {
        precondition(descriptor < 0, "a BufferedSocket must be closed or released")
    }

    /// How many bytes wait to be sent.
    var pendingOutput: Int { output.count - outputStart }

    /// How many bytes are kept for sending, those included that the kernel took meanwhile.
    var keptOutput: Int { output.count }

    override func handle(_ readiness: Readiness) {
        fill()
        flush()
        onProgress()
    }
}

extension BufferedSocket {
    /// Reads what there is, up to ``inputLimit`` bytes waiting. Call it again after taking input: no event tells of
    /// bytes that were left in the kernel.
    func fill() {
        while !hasEnded, !isBroken, input.count < Self.inputLimit {
            switch Sockets.receive(descriptor, upTo: min(Self.readSize, Self.inputLimit - input.count)) {
            case .bytes(let bytes): input += bytes
            case .wouldBlock:
                isBroken = isOutputBroken
                return
            case .ended:
                // Once the error has been told, a reset connection reads as one that has ended.
                if isOutputBroken, !hadEndedBeforeBreak { isBroken = true } else { hasEnded = true }
            case .failed: isBroken = true
            }
        }
    }

    /// Queues `bytes` and sends what the kernel takes, or in another turn when the loop has to go on first.
    func send(_ bytes: [UInt8]) {
        guard !isBroken, !isOutputBroken, !bytes.isEmpty else { return }
        // A peer that always leaves something to send must not have everything kept that it ever took.
        if outputStart >= Self.outputLimit {
            output.removeFirst(outputStart)
            outputStart = 0
        }
        output.append(contentsOf: bytes)
        if loop.mustYield { loop.runSoon(self) } else { flush() }
    }

    /// Takes back what was queued and not yet sent, for whoever gets the descriptor next.
    func takePendingOutput() -> [UInt8] {
        defer {
            output = []
            outputStart = 0
        }
        return Array(output[outputStart...])
    }

    /// Takes everything that was read.
    func takeInput() -> [UInt8] {
        defer { input = [] }
        return input
    }

    /// Closes the descriptor. With `abortively`, the peer gets a reset.
    func close(abortively: Bool = false) {
        guard let descriptor = release() else { return }
        if abortively {
            Sockets.reset(descriptor)
        } else {
            Sockets.closeInOrder(descriptor)
        }
    }

    /// Gives the descriptor away, registered with no loop; `nil` when it is gone already.
    func release() -> CInt? {
        guard descriptor >= 0 else { return nil }
        loop.deregister(self)
        onProgress = {}
        isBroken = true
        defer { descriptor = -1 }
        return descriptor
    }

    private func flush() {
        while outputStart < output.count, !isBroken {
            switch Sockets.send(descriptor, output[outputStart...]) {
            case .bytes(let count):
                outputStart += count
                bytesSent += UInt64(count)
            case .wouldBlock:
                return
            case .ended:
                isBroken = true
            case .failed(let code):
                breakOutput(code)
            }
        }
        output.removeAll(keepingCapacity: output.capacity <= 2 * Self.outputLimit)
        outputStart = 0
    }

    /// The peer takes no more. An answer that it gave before (a server that refuses an upload in the middle) waits in
    /// the kernel and is read like any other.
    private func breakOutput(_ code: CInt) {
        isOutputBroken = true
        hadEndedBeforeBreak = hasEnded || code == EPIPE
        outputStart = output.count
        fill()
    }
}
