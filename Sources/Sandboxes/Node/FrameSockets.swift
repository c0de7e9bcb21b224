import Glibc
import Namespaces
import Reactor

/// Open sockets of a network namespace that put frames on the wire behind the rules. A socket needs its capability when it is
/// opened and none later: who had CAP_NET_RAW once, and has dropped it since or handed the socket on, can still send.
struct FrameSockets {
    /// How many there are of each kind; kinds without any are left out.
    let counts: [(kind: String, count: Int)]

    /// As `/proc/net/protocols` names them.
    private static let kinds = ["PACKET": "packet", "XDP": "AF_XDP"]

    /// Counts them, whoever holds them, in this namespace or another.
    /// - Throws: when the kernel does not say.
    init(in namespace: NetworkNamespace) throws {
        let table = try namespace.enter { try DurableFile.read("/proc/thread-self/net/protocols") }
        try self.init(table: String(decoding: table, as: UTF8.self))
    }

    /// Reads a table: a heading, then the protocol's name, the size of a socket, and how many of them the namespace has.
    init(table: String) throws {
        counts = try table.split(separator: "\n").compactMap { line -> (kind: String, count: Int)? in
            let columns = line.split(separator: " ", omittingEmptySubsequences: true)
            guard let kind = columns.first.flatMap({ Self.kinds[String($0)] }) else { return nil }
            guard columns.count > 2, let count = Int(columns[2]), count >= 0 else {
                throw SystemError(operation: "count", errno: EBADMSG, context: "\(kind) sockets")
            }
            return count > 0 ? (kind: kind, count: count) : nil
        }
    }

    /// `2 packet sockets and 1 AF_XDP socket`; `nil` when there are none.
    var description: String? {
        guard !counts.isEmpty else { return nil }
        return counts.map { "\($0.count) \($0.kind) socket\($0.count == 1 ? "" : "s")" }.joined(separator: " and ")
    }
}
