/// The ASCII form of internationalised labels (RFC 3492), for hints to people only: names are never converted silently,
/// since what a person sees and what is matched would then differ.
package enum Punycode {
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
            let threshold = threshold(at: position, bias)
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

    /// The letters that what stands behind `xn--` is for; `nil` when it is none.
    package static func decode(_ label: some BidirectionalCollection<UInt8>) -> [Unicode.Scalar]? {
        let bytes = Array(label)
        let delimiter = bytes.lastIndex(of: UInt8(ascii: "-"))
        var output = (delimiter.map { bytes[..<$0] } ?? []).map { UInt32($0) }
        var position: UInt32 = 0
        var point: UInt32 = 128
        var bias: UInt32 = 72
        var index = delimiter.map { $0 + 1 } ?? 0
        while index < bytes.count {
            let start = position
            var weight: UInt32 = 1
            var base: UInt32 = 36
            while true {
                guard index < bytes.count, let digit = digit(bytes[index]) else { return nil }
                index += 1
                let (step, isTooBig) = digit.multipliedReportingOverflow(by: weight)
                guard !isTooBig, position <= UInt32.max - step else { return nil }
                position += step
                let threshold = threshold(at: base, bias)
                if digit < threshold { break }
                let (next, overflow) = weight.multipliedReportingOverflow(by: 36 - threshold)
                guard !overflow else { return nil }
                weight = next
                base += 36
            }
            let count = UInt32(output.count + 1)
            bias = adapt(position - start, points: count, isFirst: start == 0)
            let (sum, overflow) = point.addingReportingOverflow(position / count)
            guard !overflow else { return nil }
            point = sum
            position %= count
            output.insert(point, at: Int(position))
            position += 1
        }
        let scalars = output.compactMap { Unicode.Scalar($0) }
        return scalars.count == output.count ? scalars : nil
    }

    private static func digit(_ byte: UInt8) -> UInt32? {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"): UInt32(byte - UInt8(ascii: "a"))
        case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(byte - UInt8(ascii: "0")) + 26
        default: nil
        }
    }

    private static func threshold(at position: UInt32, _ bias: UInt32) -> UInt32 {
        position <= bias ? 1 : min(position - bias, 26)
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
