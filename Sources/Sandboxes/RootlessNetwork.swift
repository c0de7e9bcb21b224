import Confinement
import Glibc
public import Namespaces
import Nftables
import Reactor

/// The network of a sandbox that needs no privilege: made in a user namespace of its own, by an ``Attendant``.
///
/// What this process is sent it may use: the user namespace belongs to its user, so the kernel grants it every
/// capability over the namespaces in there, and the sockets were opened by somebody who had them too.
public final class RootlessNetwork {
    /// What the network namespace belongs to. Processes in it have power over the sandbox's network: the command must
    /// be in another one, below it.
    public let userNamespace: UserNamespace
    /// The namespace that the command runs in.
    public let namespace: NetworkNamespace
    private let deadEnd: NetworkNamespace
    /// Descriptors of an ``InsideSockets/Parcel``, until they are unpacked.
    private var parcel: [CInt]
    private let attendant: Attendant

    /// The argument, the only one, that makes this program an attendant.
    public static let attendantArgument = "--attend-to-namespaces"

    /// Makes it. Throws what the attendant says when the kernel or the distribution forbids it.
    public init() throws {
        attendant = try Attendant.start()
        let descriptors = try attendant.receiveDescriptors()
        guard descriptors.count == 3 + InsideSockets.Parcel.count else {
            descriptors.forEach(Sockets.close)
            throw AttendantError(description: "the process that makes the namespaces sent something else")
        }
        userNamespace = UserNamespace(owning: descriptors[0])
        namespace = NetworkNamespace(owning: descriptors[1])
        deadEnd = NetworkNamespace(owning: descriptors[2])
        parcel = Array(descriptors.dropFirst(3))
    }

    deinit {
        parcel.forEach(Sockets.close)
    }

    /// Closes the door and hands the sockets over; once.
    func open(ports: ListenerPorts, refusals: RefusalLimit) throws -> InsideSockets {
        precondition(!parcel.isEmpty)
        let descriptors = parcel
        parcel = []
        return try InsideSockets(unpacking: descriptors, ports: ports, refusals: refusals)
    }

    /// Tries the self-test's probes.
    var attempt: SelfTestProbes.Attempt {
        { [attendant] probes in
            try attendant.probe(probes)
            return Set(probes.refusals)
        }
    }
}

// MARK: - The other side

extension RootlessNetwork {
    /// The attendant's life, with its channel at standard input. For a process that has no other thread.
    public static func attend() -> Never {
        let channel = STDIN_FILENO
        do {
            let user = try UserNamespace.enterNew()
            try Supervisor.protect()
            let network = try SandboxNetwork.make()
            let sockets = try network.namespace.enter { try InsideSockets.Parcel(ports: Sandbox.ports) }
            let namespaces = [user.descriptor, network.namespace.descriptor, network.deadEnd.descriptor]
            // Until they are sent, nobody but these holds the descriptors open.
            try withExtendedLifetime((user, network, sockets)) {
                try AttendantMessage(text: "", descriptors: namespaces + sockets.descriptors).send(to: channel)
            }
            while true { try attend(to: channel, in: network.namespace) }
        } catch {
            try? AttendantMessage(text: "\(error)").send(to: channel)
            exit(1)
        }
    }

    private static func attend(to channel: CInt, in namespace: NetworkNamespace) throws {
        let order: AttendantMessage
        // The end of the channel is ours too.
        do { order = try AttendantMessage.receive(from: channel) } catch { exit(0) }
        guard let probes = SelfTestProbes(encoded: order.text) else {
            return try AttendantMessage(text: "self-test: malformed probes").send(to: channel)
        }
        var answer = ""
        do { _ = try namespace.enter { try probes.probe() } } catch { answer = "\(error)" }
        try AttendantMessage(text: answer).send(to: channel)
    }
}
