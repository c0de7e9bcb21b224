import NetPrimitives

/// Cuts a family's address space into the regions between nested blocks.
enum AddressRegions {
    /// Calls `body` with every region in order, and the indices of the blocks around it from the outermost in.
    /// `blocks` is sorted so that a block stands before those inside it; equal blocks may repeat.
    static func forEach(
        _ family: IPAddress.Family,
        blocks: [IPPrefix],
        _ body: (ClosedRange<UInt128>, [Int]) -> Void
    ) {
        let last: UInt128 = family == .v4 ? 0xffff_ffff : .max
        var stack: [Int] = []
        var cursor: UInt128? = 0  // nil: past the end
        func emit(through end: UInt128) {
            guard let start = cursor, start <= end else { return }
            body(start...end, stack)
            cursor = end == last ? nil : end + 1
        }
        for (index, block) in blocks.enumerated() {
            while let top = stack.last, blocks[top].last.value < block.first.value {
                emit(through: blocks[top].last.value)
                stack.removeLast()
            }
            if block.first.value > 0 { emit(through: block.first.value - 1) }
            stack.append(index)
        }
        while let top = stack.last {
            emit(through: blocks[top].last.value)
            stack.removeLast()
        }
        emit(through: last)
    }
}

/// Sorted, disjoint, non-adjacent intervals of one family.
struct AddressIntervals {
    private(set) var ranges: [ClosedRange<UInt128>] = []

    init() {}

    /// Appends an interval that starts behind all others.
    mutating func append(_ range: ClosedRange<UInt128>) {
        if let last = ranges.last, range.lowerBound <= last.upperBound || range.lowerBound - last.upperBound == 1 {
            ranges[ranges.count - 1] = last.lowerBound...max(last.upperBound, range.upperBound)
        } else {
            ranges.append(range)
        }
    }

    /// What both hold.
    func intersection(_ other: AddressIntervals) -> AddressIntervals {
        var result = AddressIntervals()
        var (left, right) = (0, 0)
        while left < ranges.count && right < other.ranges.count {
            let low = max(ranges[left].lowerBound, other.ranges[right].lowerBound)
            let high = min(ranges[left].upperBound, other.ranges[right].upperBound)
            if low <= high { result.append(low...high) }
            if ranges[left].upperBound < other.ranges[right].upperBound { left += 1 } else { right += 1 }
        }
        return result
    }
}
