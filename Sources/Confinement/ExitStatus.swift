internal import Glibc

/// How a confined command ended.
public enum ExitStatus: Hashable, Sendable {
    /// It called exit with this status, 0...255.
    case exited(CInt)
    /// This signal ended it.
    case signalled(CInt)

    /// Reads a wait status (wait(2)).
    init(waitStatus: CInt) {
        let signal = waitStatus & 0x7f
        self = signal == 0 ? .exited((waitStatus >> 8) & 0xff) : .signalled(signal)
    }

    /// The status as a shell reports it: the command's own, or 128 and the signal's number.
    public var code: CInt {
        switch self {
        case .exited(let status): status
        case .signalled(let number): 128 + number
        }
    }
}
