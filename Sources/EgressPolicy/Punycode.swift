/// The ASCII form of internationalised labels (RFC 3492), for the hint in an error message only: names are never
/// converted silently, since what a person sees and what is matched would then differ.
enum Punycode {
    /// The `xn--` form of a dotted name with labels that are not ASCII; `nil` when that needs more than lower-casing
    /// (combining marks, which would have to be composed first) or a label gets too long.
    static func encode(name: String) -> String? {
        let dots: Set<Unicode.Scalar> = [".", "\u{3002}", "\u{ff0e}", "\u{ff61}"]
        var encoded: [String] = []
        for label in name.lowercased().unicodeScalars.split(
            omittingEmptySubsequences: false,
            whereSeparator: dots.contains
        ) {
            if label.allSatisfy(\.isASCII) {
                encoded.append(String(String.UnicodeScalarView(label)))
                continue
            }
            guard !label.contains(where: \.properties.isCombining), let text = encode(label: Array(label)),
                text.utf8.count <= 59
            else { return nil }
            encoded.append("xn--" + text)
        }
        return encoded.joined(separator: ".")
    }

    // RFC 3492 5: the parameters; 6.3: the procedure.
    private static func encode(label: [Unicode.Scalar]) -> String? {
        let basic = label.filter(\.isASCII)
        var output = String(String.UnicodeScalarView(basic))
        if !basic.isEmpty { output.append("-") }
        var point: UInt32 = 128
        var delta: UInt32 = 0
        var bias: UInt32 = 72
        var handled = UInt32(basic.count)
        while handled < label.count {
            guard let next = label.lazy.map(\.value).filter({ $0 >= point }).min() else { return nil }
            let (step, overflow) = (next - point).multipliedReportingOverflow(by: handled + 1)
            guard !overflow, delta <= UInt32.max - step else { return nil }
            delta += step
            point = next
            for scalar in label {
                if scalar.value < point { delta += 1 }
                guard scalar.value == point else { continue }
                append(delta, bias: bias, to: &output)
                bias = adapt(delta, points: handled + 1, isFirst: handled == UInt32(basic.count))
                delta = 0
                handled += 1
            }
            delta += 1
            point += 1
        }
        return output
    }

    private static func append(_ delta: UInt32, bias: UInt32, to output: inout String) {
        var quotient = delta
        var position: UInt32 = 36
        while true {
            let threshold = position <= bias ? 1 : min(position - bias, 26)
            guard quotient >= threshold else { break }
            output.unicodeScalars.append(digit(threshold + (quotient - threshold) % (36 - threshold)))
            quotient = (quotient - threshold) / (36 - threshold)
            position += 36
        }
        output.unicodeScalars.append(digit(quotient))
    }

    private static func digit(_ value: UInt32) -> Unicode.Scalar {
        Unicode.Scalar(UInt8(value < 26 ? value + 0x61 : value - 26 + 0x30))
    }

    private static func adapt(_ delta: UInt32, points: UInt32, isFirst: Bool) -> UInt32 {
        var delta = isFirst ? delta / 700 : delta / 2
        delta += delta / points
        var steps: UInt32 = 0
        while delta > 455 {
            delta /= 35
            steps += 36
        }
        return steps + 36 * delta / (delta + 38)
    }
}

extension Unicode.Scalar.Properties {
    fileprivate var isCombining: Bool {
        switch generalCategory {
        case .nonspacingMark, .spacingMark, .enclosingMark: true
        default: false
        }
    }
}
