import EgressPolicy
import NetPrimitives

/// A service at a name or address.
struct Service: Hashable, Comparable {
    let port: UInt16
    let transport: TransportProtocol

    static func < (left: Self, right: Self) -> Bool {
        (left.transport.rawValue, left.port) < (right.transport.rawValue, right.port)
    }
}

/// What a record speaks of.
enum Subject: Hashable {
    case name(DomainName)
    case address(IPAddress)

    var text: String {
        switch self {
        case .name(let name): "\(name)"
        case .address(let address): "\(address)"
        }
    }

    var target: Target {
        switch self {
        case .name(let name): .name(name)
        case .address(let address): .addresses(IPPrefix(host: address))
        }
    }
}

/// Who asked for something, how often and when. Everything in it is bounded, and counts stay at the highest number.
struct Sightings: Hashable {
    /// So many sandboxes and programs are told by name.
    static let named = 3

    private(set) var first: WallTime
    private(set) var last: WallTime
    private(set) var times: UInt64 = 0
    /// The first few, in the order they appeared.
    private(set) var sandboxes: [String] = []
    private(set) var hasMoreSandboxes = false
    private(set) var programs: [String] = []

    init(at time: WallTime) {
        first = time
        last = time
    }

    mutating func add(_ count: UInt64, at time: WallTime, sandbox: String, program: String?) {
        first = min(first, time)
        last = max(last, time)
        times = times.addingClamped(count)
        if !sandbox.isEmpty, !sandboxes.contains(sandbox) {
            if sandboxes.count < Self.named { sandboxes.append(sandbox) } else { hasMoreSandboxes = true }
        }
        if let program, !programs.contains(program), programs.count < Self.named { programs.append(program) }
    }
}

/// What was seen of one name or address.
struct Observation {
    /// More services than this at one place are a scan, and no policy's matter.
    static let serviceLimit = 32

    /// Connections that were let through, or that the policy refused.
    var services: [Service: UInt64] = [:]
    /// Whether there were more services than are kept.
    var isScan = false
    /// Queries that were answered.
    var answeredQueries: UInt64 = 0
    /// Queries that the policy refused.
    var refusedQueries: UInt64 = 0
    /// A rule of the policy, or of the operator, that refused it.
    var refusal: Refusal?
    /// Connections, or queries where there are none.
    var connections: Sightings?
    var queries: Sightings?
    var bytesUp: UInt64 = 0
    var bytesDown: UInt64 = 0

    /// The connections, or the queries where there are none.
    var sightings: Sightings? { connections ?? queries }

    /// A rule that refused, as the record has it.
    struct Refusal: Hashable {
        let place: String
        let isOperators: Bool
    }
}

extension UInt64 {
    func addingClamped(_ other: UInt64) -> UInt64 {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? .max : sum
    }
}
