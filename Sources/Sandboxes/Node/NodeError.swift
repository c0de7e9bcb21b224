/// Why a node would not do what it was asked; each kind is answered with its own status.
public enum NodeError: Error, Hashable, Sendable {
    /// There is no sandbox of that name.
    case unknownSandbox(String)
    /// The question is not open any more, or never was.
    case unknownQuestion(UInt64, sandbox: String)
    /// The sandbox is not in a state for it, or the name or namespace belongs to another one.
    case conflict(String)
    /// The policy is not the one that the caller wants to change.
    case stale(current: UInt64)
    /// What was asked for cannot be done with what was named: no such namespace, no such container.
    case unprocessable(field: String, String)
    /// The kernel or the disk would not; nothing was changed.
    case failed(String)
    /// Nothing is accepted any more.
    case stopping
}

extension NodeError: CustomStringConvertible {
    /// One clause.
    public var description: String {
        switch self {
        case .unknownSandbox(let id): "there is no sandbox \(id)"
        case .unknownQuestion(let number, let id):
            "question \(number) of sandbox \(id) is not open; sandgate allow opens a name that was refused"
        case .conflict(let problem), .failed(let problem): problem
        case .stale(let current): "the policy has changed: its revision is \(current)"
        case .unprocessable(let field, let problem): "\(field): \(problem)"
        case .stopping: "the node is stopping"
        }
    }
}
