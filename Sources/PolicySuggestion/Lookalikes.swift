import EgressPolicy
import NetPrimitives
import PolicyDocument

/// Names that a person could take for one another: told of names of different owners only, since an owner's own names are
/// alike on purpose.
struct Lookalikes {
    /// More owners than this are not held against each other.
    private static let limit = 2_000
    /// Owners whose own label is shorter than these are alike by chance.
    private static let oneSlip = 4
    private static let twoSlips = 8

    private struct Owner {
        let name: DomainName
        let text: [UInt8]
        let skeleton: [UInt8]
        /// A bit for each letter in it: owners with very different letters are not compared letter by letter.
        let letters: UInt64

        init(_ name: DomainName) {
            self.name = name
            text = name.bytes
            skeleton = Skeleton.of(name)
            letters = name.bytes.reduce(0) { $0 | 1 << UInt64($1 & 63) }
        }
    }

    /// For each owner, another one that it looks like.
    private var likenesses: [DomainName: DomainName] = [:]
    private var owners: Set<DomainName> = []
    /// The names that look alike as a whole.
    private var twins: [[UInt8]: Set<DomainName>] = [:]

    /// Holds the owners of `names` against each other.
    init(among names: some Sequence<DomainName>) {
        for name in names {
            owners.insert(PublicSuffixes.registered(in: name))
            twins[Skeleton.of(name), default: []].insert(name)
        }
        guard owners.count <= Self.limit else { return }
        let sorted = owners.sorted().map(Owner.init)
        for (index, one) in sorted.enumerated() {
            var isKnown = likenesses[one.name] != nil
            for other in sorted[(index + 1)...] {
                if isKnown, likenesses[other.name] != nil { continue }
                guard Self.areAlike(one, other) else { continue }
                if !isKnown { likenesses[one.name] = other.name }
                isKnown = true
                if likenesses[other.name] == nil { likenesses[other.name] = one.name }
            }
        }
    }

    /// What about `name` could deceive, each as a clause.
    func suspicions(of name: DomainName) -> [String] {
        let owner = PublicSuffixes.registered(in: name)
        var clauses: [String] = []
        let twin = (twins[Skeleton.of(name)] ?? []).sorted().first { PublicSuffixes.registered(in: $0) != owner }
        if let other = likenesses[owner] ?? twin { clauses.append("looks like \(other), which is another owner's") }
        if let other = borrowed(in: name, by: owner) { clauses.append("begins like \(other), but belongs to \(owner)") }
        if name.labels.contains(where: { $0.starts(with: Array("xn--".utf8)) }) {
            clauses.append("an internationalised name: its letters may look like others")
        }
        return clauses
    }

    /// Another owner's whole name among the labels in front of `owner`: `example.com.evil.example`.
    private func borrowed(in name: DomainName, by owner: DomainName) -> DomainName? {
        let front = name.labels.dropLast(owner.labels.count)
        guard front.count >= 2 else { return nil }
        for start in front.indices {
            for end in front.indices where end > start {
                let text = front[start...end].joined(separator: [UInt8(ascii: ".")])
                if let candidate = try? DomainName(ascii: Array(text)), owners.contains(candidate) { return candidate }
            }
        }
        return nil
    }

    private static func areAlike(_ one: Owner, _ other: Owner) -> Bool {
        if one.skeleton == other.skeleton { return true }
        let shortest = min(one.name.labels[0].count, other.name.labels[0].count)
        guard shortest >= oneSlip else { return false }
        let allowed = shortest >= twoSlips && one.name.parent == other.name.parent ? 2 : 1
        guard (one.letters ^ other.letters).nonzeroBitCount <= 2 * allowed else { return false }
        return abs(one.text.count - other.text.count) <= allowed
            && Spelling.slips(from: one.text, to: other.text) <= allowed
    }
}

/// A name reduced to what it looks like: letters that are taken for one another become one, punycode becomes the letters
/// that it stands for, and hyphens and dots go.
enum Skeleton {
    static func of(_ name: DomainName) -> [UInt8] {
        var text: [Unicode.Scalar] = []
        for label in name.labels {
            if label.starts(with: Array("xn--".utf8)), let decoded = Punycode.decode(label.dropFirst(4)) {
                text += decoded
            } else {
                text += label.map { Unicode.Scalar($0) }
            }
        }
        var skeleton: [UInt8] = []
        for scalar in text { skeleton += letters(scalar) }
        return joined(skeleton)
    }

    /// What a scalar looks like in lower-case ASCII.
    private static func letters(_ scalar: Unicode.Scalar) -> [UInt8] {
        if let ascii = alike[scalar] { return [UInt8(ascii: ascii)] }
        guard !scalar.isASCII else {
            return scalar == "-" || scalar == "_" ? [] : [UInt8(ascii: scalar)]
        }
        return Array("{\(scalar.value)}".utf8)
    }

    /// `rn` looks like `m`, `vv` like `w`.
    private static func joined(_ letters: [UInt8]) -> [UInt8] {
        var joined: [UInt8] = []
        for letter in letters {
            switch (joined.last, letter) {
            case (UInt8(ascii: "r"), UInt8(ascii: "n")): joined[joined.count - 1] = UInt8(ascii: "m")
            case (UInt8(ascii: "v"), UInt8(ascii: "v")): joined[joined.count - 1] = UInt8(ascii: "w")
            default: joined.append(letter)
            }
        }
        return joined
    }

    private static let alike: [Unicode.Scalar: Unicode.Scalar] = {
        var alike: [Unicode.Scalar: Unicode.Scalar] = ["0": "o", "1": "l", "i": "l", "5": "s", "8": "b"]
        // Cyrillic, Greek, and Latin letters with marks that are small on a screen.
        let sets: [(Unicode.Scalar, String)] = [
            ("a", "аàáâãäåāăąǎȧạα"), ("b", "ƅЬьḃ"), ("c", "сçćĉċčϲ"), ("d", "ԁďđḍ"), ("e", "еèéêëēĕėęěẹ"), ("f", "ḟſ"),
            ("g", "ɡĝğġģǧ"), ("h", "һĥħḥ"), ("k", "кķκ"), ("l", "ıіìíîïĩīĭįǐịιӏłĺļľḷ"), ("m", "мḿ"), ("n", "ոñńņňṇ"),
            ("o", "оòóôõöøōŏőǒọοσө"), ("p", "рρṗ"), ("q", "ԛ"), ("r", "гŕŗřṛ"), ("s", "ѕśŝşšșṣ"), ("t", "тţťțṭτ"),
            ("u", "цùúûüũūŭůűųǔụυս"), ("v", "ѵνṿ"), ("w", "ѡԝŵẁẃẅω"), ("x", "хχẋ"), ("y", "уýÿŷỳγү"), ("z", "źżžẓ"),
        ]
        for (letter, others) in sets {
            for scalar in others.unicodeScalars {
                alike[scalar] = letter == "l" ? "l" : alike[letter] ?? letter
            }
        }
        return alike
    }()
}
