/// The live connections of a sandbox. Each keeps its slot while it lives: so they can be looked through some at a time while
/// others come and go, and one that lives all the while is seen once.
struct TunnelTable {
    /// Where a connection is kept.
    struct Place {
        /// Its slot; -1 for none.
        fileprivate(set) var slot: Int32 = -1
        /// Tells it from the sandbox's other connections, those that had the slot before it too.
        fileprivate(set) var number: UInt32 = 0
    }

    private var slots: [Tunnel?] = []
    private var freeSlots: [Int32] = []
    private var lastNumber: UInt32 = 0

    /// How many there are.
    var count: Int { slots.count - freeSlots.count }

    /// How many slots there are, the empty ones included.
    var slotCount: Int { slots.count }

    /// All there are.
    var all: [Tunnel] { slots.compactMap(\.self) }

    /// The connection in a slot, of those below ``slotCount``.
    subscript(slot: Int) -> Tunnel? { slots[slot] }

    mutating func add(_ tunnel: Tunnel) {
        precondition(tunnel.place.slot < 0, "a tunnel is kept in one place")
        lastNumber &+= 1
        if let slot = freeSlots.popLast() {
            slots[Int(slot)] = tunnel
            tunnel.place = Place(slot: slot, number: lastNumber)
        } else {
            tunnel.place = Place(slot: Int32(slots.count), number: lastNumber)
            slots.append(tunnel)
        }
    }

    /// Does nothing when it is not kept here any more.
    mutating func remove(_ tunnel: Tunnel) {
        let slot = tunnel.place.slot
        guard slot >= 0 else { return }
        tunnel.place.slot = -1
        slots[Int(slot)] = nil
        freeSlots.append(slot)
    }
}
