/// Holds back what downstream says behind its first words until upstream has answered those, and looks at it then if need
/// be. A relay has one for its first moments only.
///
///     shut ─▶ looking ─▶ open
///       └───────────────▶┘
open class RelayGate {
    /// What becomes of bytes that downstream says.
    public enum State: Sendable {
        /// They wait.
        case shut
        /// They are looked at before they pass.
        case looking
        /// They pass, and are never looked at again.
        case open
    }

    /// What is to be done with bytes that were looked at.
    public enum Step: Sendable {
        /// They wait until there are so many.
        case waits(forAtLeast: Int)
        /// So many of them pass; what comes behind is looked at again.
        case passes(Int)
        /// All of them pass, and what comes behind them.
        case opens
        /// None passes; the relay was aborted.
        case refuses
    }

    /// Changed by ``upstreamSaid(_:)`` alone, and by the relay.
    public final var state = State.shut
    /// How many bytes may go up before the next look.
    final var allowance: Int
    /// The receive low-water mark of the downstream socket.
    final var lowWater = 1

    /// A gate that `allowance` bytes pass unseen: those that were judged already.
    public init(allowance: Int) {
        self.allowance = allowance
    }

    /// A gate of a relay that another process began; open where that had none.
    public init(continuing state: RelayState) {
        allowance = state.gate?.allowance ?? 0
        self.state = state.gate.map { $0.isLooking ? .looking : .shut } ?? .open
    }

    /// What another process needs to go on; `nil` once it is open.
    final var progress: RelayState.Gate? {
        state == .open ? nil : RelayState.Gate(isLooking: state == .looking, allowance: allowance)
    }

    /// Looks at what upstream says, which passes in any case. Called while the gate is shut.
    open func upstreamSaid(_ bytes: UnsafeRawBufferPointer) {
        state = .open
    }

    /// Looks at what downstream says, from the first byte that has not passed. Called while the gate is looking.
    open func downstreamSays(_ bytes: [UInt8]) -> Step {
        .opens
    }
}
