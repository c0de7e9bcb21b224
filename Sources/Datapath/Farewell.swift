import NetPrimitives
import Reactor

/// The last bytes to a client, delivered. Closing a socket with unread input makes the kernel send a reset, which
/// discards what the peer has not read yet; so the output is sent and ended, and the input drained until the peer ends
/// too. It is not waited for longer than a second after it has everything, nor than half a minute in which it took
/// nothing.
final class Farewell: EventSource {
    private static let checkNanoseconds: UInt64 = 1_000_000_000
    private static let maximumStalledChecks = 30
    /// How many times it throws input away before others have their turn, 64 KiB at most each time: several processes that
    /// send over one connection are as fast.
    private static let turnLimit = 16

    private let loop: EventLoop
    private var descriptor: CInt
    private var bytes: ArraySlice<UInt8>
    private var hasEndedOutput = false
    private var timer: TimerToken?
    private var unsentAtLastCheck = -1
    private var stalledChecks = 0
    private var onEnd: () -> Void = {}

    /// Takes ownership of `descriptor`, registered with no loop.
    init(loop: EventLoop, descriptor: CInt, bytes: [UInt8]) {
        self.loop = loop
        self.descriptor = descriptor
        self.bytes = bytes[...]
    }

    /// Begins; `onEnd` is called once, when the descriptor is closed.
    func start(onEnd: @escaping () -> Void) {
        self.onEnd = onEnd
        Sockets.setReceiveLowWater(descriptor, 1)
        do {
            try loop.register(self, descriptor: descriptor, interest: [.readable, .writable], edgeTriggered: true)
        } catch {
            return close(abortively: true)
        }
        armCheck()
        proceed()
    }

    /// Ends at once, without ``start(onEnd:)``'s callback.
    func abort() {
        onEnd = {}
        close(abortively: true)
    }

    override func handle(_ readiness: Readiness) {
        proceed()
    }

    private func proceed() {
        while !bytes.isEmpty {
            switch Sockets.send(descriptor, bytes) {
            case .bytes(let count): bytes = bytes.dropFirst(count)
            case .wouldBlock: return
            case .ended, .failed: return close(abortively: true)
            }
        }
        if !hasEndedOutput {
            hasEndedOutput = true
            Sockets.endOutput(descriptor)
        }
        // What the client still sends is of no interest; how long it is waited for is bounded by the check.
        for _ in 0..<Self.turnLimit {
            switch Sockets.discard(descriptor) {
            case .bytes: continue
            case .wouldBlock: return
            case .ended: return close(abortively: false)
            case .failed: return close(abortively: true)
            }
        }
        loop.runSoon(self)
    }

    /// A slow client gets what is already in the kernel's buffer; one that takes nothing does not keep us.
    private func armCheck() {
        timer = loop.schedule(at: loop.now.advanced(byNanoseconds: Self.checkNanoseconds)) { [weak self] in
            self?.check()
        }
    }

    private func check() {
        timer = nil
        let unsent = bytes.count + Sockets.unsentBytes(descriptor)
        stalledChecks = unsent == unsentAtLastCheck ? stalledChecks + 1 : 0
        unsentAtLastCheck = unsent
        if unsent == 0 || stalledChecks >= Self.maximumStalledChecks { return close(abortively: true) }
        armCheck()
    }

    private func close(abortively: Bool) {
        guard descriptor >= 0 else { return }
        loop.deregister(self)
        if let timer { loop.cancel(timer) }
        timer = nil
        if abortively {
            Sockets.reset(descriptor)
        } else {
            Sockets.closeInOrder(descriptor)
        }
        descriptor = -1
        let onEnd = onEnd
        self.onEnd = {}
        onEnd()
    }
}
