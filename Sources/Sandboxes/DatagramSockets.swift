import Datapath
import NetPrimitives
import Nftables
import Reactor

/// What a sandbox needs for datagrams, opened inside its namespace; only where its policy opens UDP.
struct DatagramSockets {
    /// Asks where redirected datagrams were going.
    let conntrack: Conntrack
    /// For each address family, the relay's socket and one for ICMP.
    let descriptors: [DatagramListener.Descriptors]

    /// Opens all of them in the calling thread's namespace, or none.
    static func open(at addresses: [IPAddress], port: UInt16) throws -> DatagramSockets {
        var opened: [DatagramListener.Descriptors] = []
        do {
            for address in addresses {
                let datagrams = try Sockets.udpSocket(Endpoint(address, port))
                do {
                    opened.append(.init(datagrams: datagrams, icmp: try Sockets.icmpSocket(from: address)))
                } catch {
                    Sockets.close(datagrams)
                    throw error
                }
            }
            return DatagramSockets(conntrack: Conntrack(socket: try NetlinkSocket()), descriptors: opened)
        } catch {
            opened.forEach { $0.close() }
            throw error
        }
    }

    /// Closes them, when nobody serves them.
    func close() {
        descriptors.forEach { $0.close() }
    }
}

extension DatagramListener.Descriptors {
    /// Closes both sockets.
    func close() {
        Sockets.close(datagrams)
        Sockets.close(icmp)
    }
}
