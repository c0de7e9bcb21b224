public import Datapath

/// What is going on in a node, over all of its sandboxes. Taken when somebody asks; nothing is kept up to date meanwhile.
public struct NodeMeasurements: Sendable {
    /// How long programs waited for what is on their way out, since the node began.
    public var latencies = LatencyCounts()
    /// How many TCP connections live.
    public var connections = 0
    /// How many datagram flows live.
    public var datagramFlows = 0
    /// How many addresses are pinned.
    public var pins = 0
    /// How many records wait to be written by the journal's thread.
    public var queuedRecords = 0

    /// Nothing going on.
    public init() {}

    /// Adds what is going on elsewhere in the node.
    mutating func add(_ other: NodeMeasurements) {
        latencies.add(other.latencies)
        connections += other.connections
        datagramFlows += other.datagramFlows
        pins += other.pins
        queuedRecords += other.queuedRecords
    }
}
