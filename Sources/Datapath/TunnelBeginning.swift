import EgressCore
import NetPrimitives
import Reactor
import WireFormat

/// What a tunnel knows only until it is relayed. An object of its own, so that it can be forgotten then: it takes as much
/// memory as the rest, and most of a tunnel's life is after it.
final class TunnelBeginning {
    var firstBytes = FirstBytes()
    /// What was judged, where it was a ClientHello.
    var hello: ClientHello?
    /// What the client sent that was passed on while it could still have become a request line.
    var passedOn: [UInt8] = []
    var connector: Connector?
    /// What the loop tells of the server's socket while nobody wants to know.
    var upstreamWatch: KeepingSource?
    /// What the connector tries.
    var dialled: [Endpoint] = []
    /// When the client was first waited for to say what this is.
    var listeningSince: MonotonicTime

    /// Before the first byte, now.
    init(at now: MonotonicTime) {
        listeningSince = now
    }
}
