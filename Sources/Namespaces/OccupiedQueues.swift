internal import CLinux
internal import Glibc

/// All queues of devices, taken so that no program gets one for an AF_XDP socket.
///
/// What such a socket sends (with CAP_NET_RAW, no program and no other privilege needed) goes from its ring to the driver:
/// behind the chains of every nftables family, netdev's egress included, and behind the queueing discipline. The kernel
/// gives each queue of a device to one set of rings; these here have nothing to send, and receive nothing.
///
///     packet sockets   ─▶ netdev egress ─▶ driver
///     AF_XDP sockets   ───────────────────▶ driver      unless the queue is taken
///
/// They are free again when the process ends.
public final class OccupiedQueues: Sendable {
    private let descriptors: [CInt]

    /// More than any device has.
    private static let most: UInt32 = 4_096

    /// Takes them in the calling thread's network namespace, which takes CAP_NET_RAW. Where the kernel has no AF_XDP, there
    /// is nothing to take. Throws with nothing taken.
    public init(of devices: [(name: String, index: UInt32)]) throws(NamespaceError) {
        var taken: [CInt] = []
        do {
            for device in devices { try Self.take(device, &taken) }
        } catch {
            taken.forEach { close($0) }
            throw error
        }
        descriptors = taken
    }

    deinit {
        for descriptor in descriptors { close(descriptor) }
    }

    /// How many they are.
    public var count: Int { descriptors.count }

    private static func take(
        _ device: (name: String, index: UInt32),
        _ taken: inout [CInt]
    ) throws(NamespaceError) {
        for queue in 0..<most {
            let descriptor = occupy(device.index, queue)
            if descriptor >= 0 {
                taken.append(descriptor)
                continue
            }
            switch errno {
            case EAFNOSUPPORT: return
            // Behind the last one; every device has one.
            case EINVAL where queue > 0: return
            case let number:
                throw NamespaceError(
                    "cannot take queue \(queue) of \(device.name), by which programs with CAP_NET_RAW get past every rule",
                    errno: number,
                    detail: hint(number)
                )
            }
        }
    }

    /// The kernel takes a queue back from a process that has ended a little later: it is asked again for a while.
    private static func occupy(_ device: UInt32, _ queue: UInt32) -> CInt {
        for _ in 0..<attempts {
            let descriptor = clinux_occupy_queue(device, queue)
            guard descriptor < 0, errno == EBUSY else { return descriptor }
            usleep(pauseMicroseconds)
        }
        return clinux_occupy_queue(device, queue)
    }

    private static let attempts = 200
    private static let pauseMicroseconds: UInt32 = 10_000

    private static func hint(_ number: CInt) -> String {
        switch number {
        case EBUSY: "a program has an AF_XDP socket there: end it first"
        case ENOBUFS: "RLIMIT_MEMLOCK is used up: raise it, or give CAP_IPC_LOCK"
        case EPERM: "CAP_NET_RAW is missing, or the container's system call filter refuses AF_XDP sockets"
        default: ""
        }
    }
}
