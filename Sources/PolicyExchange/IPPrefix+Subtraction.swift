import NetPrimitives

extension IPPrefix {
    /// The blocks that hold this one's addresses but those of `others`, in order; no more of them than about `limit`. Costs
    /// what sorting `others` costs.
    func subtracting(_ others: [IPPrefix], limit: Int = .max) -> [IPPrefix] {
        let holes = others.filter { contains($0) || $0.contains(self) }.sorted { $0.first.value < $1.first.value }
        var blocks: [IPPrefix] = []
        var next = first.value
        for hole in holes {
            if hole.contains(self) { return [] }
            if blocks.count > limit { return blocks }
            if hole.first.value > next { append(from: next, through: hole.first.value - 1, to: &blocks) }
            if hole.last.value >= next {
                if hole.last.value == last.value { return blocks }
                next = hole.last.value + 1
            }
        }
        append(from: next, through: last.value, to: &blocks)
        return blocks
    }

    /// The fewest blocks that hold exactly the addresses of a range.
    private func append(from first: UInt128, through last: UInt128, to blocks: inout [IPPrefix]) {
        let width = family.bitWidth
        var next = first
        while true {
            var length = min(next.trailingZeroBitCount, width)
            while length > 0, length == 128 || next | ((1 << UInt128(length)) - 1) > last { length -= 1 }
            if first == 0, last == .max { length = 128 }
            blocks.append(IPPrefix(IPAddress(family: family, value: next)!, length: width - length))
            let end = length == 128 ? UInt128.max : next | ((1 << UInt128(length)) - 1)
            guard end < last else { return }
            next = end + 1
        }
    }
}
