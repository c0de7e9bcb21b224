/// Words that were mistyped: what was written instead of one of those there are.
public enum Spelling {
    /// A word of so many letters and more may be the beginning of what is meant.
    private static let shortestBeginning = 3
    /// A letter may be wrong of so many, and of the three of a short word.
    private static let lettersPerSlip = 4
    /// Nobody means a word of a list by more than this, which whoever writes the document chooses.
    private static let longest = 64

    /// The words as what is expected, with the one that `word` was meant to be behind them if there is one that it comes near:
    /// `one of mode, egress; did you mean egress?`.
    public static func expectation(of names: [String], for word: String) -> String {
        "one of \(names.joined(separator: ", "))\(proposal(for: word, among: names))"
    }

    /// `; did you mean egress?`, or nothing where no name comes near.
    public static func proposal(for word: String, among names: [String]) -> String {
        nearest(to: word, among: names).map { "; did you mean \($0)?" } ?? ""
    }

    /// The name that `word` differs least from: in the case of letters, in `_` and `-`, or in one letter of four at most. Or
    /// else the only one that begins with it.
    public static func nearest(to word: String, among names: [String]) -> String? {
        guard !word.isEmpty, word.utf8.count <= longest else { return nil }
        let folded = fold(word)
        let ranked = names.map { (name: $0, slips: slips(from: folded, to: fold($0))) }
        if let best = ranked.min(by: { $0.slips < $1.slips }), best.slips <= (folded.count + 1) / lettersPerSlip {
            return best.name
        }
        let begun = names.filter { fold($0).starts(with: folded) }
        return folded.count >= shortestBeginning && begun.count == 1 ? begun[0] : nil
    }

    /// How many letters are wrong, missing, too many or swapped with their neighbour (Damerau and Levenshtein's distance,
    /// optimal string alignment). It takes time in proportion to the product of both lengths.
    public static func slips(from one: [UInt8], to other: [UInt8]) -> Int {
        var before: [Int] = []
        var above = Array(0...other.count)
        for (row, letter) in one.enumerated() {
            var current = [row + 1]
            for (column, otherLetter) in other.enumerated() {
                var least = min(above[column + 1], current[column]) + 1
                least = min(least, above[column] + (letter == otherLetter ? 0 : 1))
                if row > 0, column > 0, letter == other[column - 1], one[row - 1] == otherLetter {
                    least = min(least, before[column - 1] + 1)
                }
                current.append(least)
            }
            (before, above) = (above, current)
        }
        return above[other.count]
    }

    private static func fold(_ word: String) -> [UInt8] {
        word.lowercased().utf8.filter { $0 != UInt8(ascii: "_") && $0 != UInt8(ascii: "-") }
    }
}
