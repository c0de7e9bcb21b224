internal import NetPrimitives

/// Names a timer of one ``EventLoop``. A token of a timer that has run or was cancelled names nothing.
public struct TimerToken: Hashable, Sendable {
    let slot: UInt32
    let generation: UInt32
    var order = TimerOrder.afterEvents
}

/// When in a turn of an ``EventLoop`` a timer runs that is due: it matters when the loop comes late, after its thread was
/// frozen for one.
public enum TimerOrder: Hashable, Sendable {
    /// After what descriptors had to say: what somebody waits for is not given up when it is there.
    case afterEvents
    /// Before that: what it takes away is taken before anybody has it once more.
    case beforeEvents
}

/// The pending timers: a binary heap by deadline, with the place of each so that any can be taken out. Timers of equal
/// deadlines run in the order they were added.
struct TimerHeap {
    private struct Entry {
        var deadline: UInt64
        var sequence: UInt64
        var slot: Int

        func precedes(_ other: Entry) -> Bool {
            deadline == other.deadline ? sequence < other.sequence : deadline < other.deadline
        }
    }

    private struct Slot {
        var generation: UInt32 = 0
        /// The place in the heap, -1 when free.
        var place: Int32 = -1
        var action: (() -> Void)?
    }

    private var heap: [Entry] = []
    private var slots: [Slot] = []
    private var free: [Int] = []
    private var sequence: UInt64 = 0

    var count: Int { heap.count }

    /// The earliest deadline.
    var earliest: MonotonicTime? { heap.first.map { MonotonicTime(nanoseconds: $0.deadline) } }

    /// How many timers there have been so far; timers added later have a greater sequence number.
    var sequenceNow: UInt64 { sequence }

    mutating func add(at deadline: MonotonicTime, _ action: @escaping () -> Void) -> TimerToken {
        let index: Int
        if let reused = free.popLast() {
            index = reused
        } else {
            index = slots.count
            slots.append(Slot())
        }
        slots[index].action = action
        slots[index].place = Int32(heap.count)
        heap.append(Entry(deadline: deadline.nanoseconds, sequence: sequence, slot: index))
        sequence += 1
        siftUp(heap.count - 1)
        return TimerToken(slot: UInt32(index), generation: slots[index].generation)
    }

    mutating func cancel(_ token: TimerToken) {
        let index = Int(token.slot)
        guard index < slots.count, slots[index].generation == token.generation, slots[index].place >= 0 else { return }
        _ = remove(at: Int(slots[index].place))
    }

    /// Takes out the earliest timer that is due at `now` and was added before `limit`.
    mutating func popDue(at now: MonotonicTime, addedBefore limit: UInt64) -> (() -> Void)? {
        guard let first = heap.first, first.deadline <= now.nanoseconds, first.sequence < limit else { return nil }
        return remove(at: 0)
    }

    private mutating func remove(at place: Int) -> (() -> Void)? {
        let index = heap[place].slot
        let last = heap.removeLast()
        if place < heap.count {
            put(last, at: place)
            siftUp(place)
            siftDown(Int(slots[last.slot].place))
        }
        let action = slots[index].action
        slots[index].action = nil
        slots[index].place = -1
        slots[index].generation &+= 1
        free.append(index)
        return action
    }

    private mutating func put(_ entry: Entry, at place: Int) {
        heap[place] = entry
        slots[entry.slot].place = Int32(place)
    }

    private mutating func siftUp(_ start: Int) {
        var place = start
        let entry = heap[place]
        while place > 0 {
            let parent = (place - 1) / 2
            guard entry.precedes(heap[parent]) else { break }
            put(heap[parent], at: place)
            place = parent
        }
        put(entry, at: place)
    }

    private mutating func siftDown(_ start: Int) {
        var place = start
        let entry = heap[place]
        while true {
            var child = 2 * place + 1
            guard child < heap.count else { break }
            if child + 1 < heap.count, heap[child + 1].precedes(heap[child]) { child += 1 }
            guard heap[child].precedes(entry) else { break }
            put(heap[child], at: place)
            place = child
        }
        put(entry, at: place)
    }
}
