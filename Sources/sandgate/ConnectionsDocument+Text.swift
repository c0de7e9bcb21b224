import Audit
import NetPrimitives
import Sandboxes

extension ConnectionsDocument {
    /// When it was answered, in microseconds.
    var microseconds: Int64 { answeredAt.microseconds }
    /// When it was answered: `00:41:07`, UTC.
    var clock: String { answeredAt.clock }

    private var answeredAt: WallTime { Timestamp.time(parsing: time.utf8) ?? WallTime(microseconds: 0) }
}

// As a person reads it: what a sandbox chose is escaped.
extension ConnectionDocument {
    /// The sandbox's name.
    var owner: String { Printable.text(sandbox) }

    /// The name or address, and the port: `files.example:443`, `[2001:db8::1]:53/udp`.
    var destination: String {
        Printable.destination(host: host, address: ip, port: port.map(UInt64.init), protocolName: `protocol`) ?? "?"
    }

    /// The address.
    var address: String { ip.map { Printable.text($0) } ?? "-" }

    /// How it came, and by what it was judged or how far it is.
    var way: String {
        let course = via == "redirected" ? [] : [via]
        return (course + [state == "open" ? layer ?? state : state]).map { Printable.text($0) }.joined(separator: " ")
    }

    /// The rule that it stands on.
    var grounds: String {
        let marker = report == true ? "would be denied: " : ""
        guard let rule else { return marker + "-" }
        return marker
            + "\(Printable.text(rule.source ?? "egress"))[\(rule.index)] \(Printable.text(rule.action)) \(Printable.text(rule.target))"
    }

    /// How long it has lived at `microseconds`: `12s`, `3m05s`, `2h10m`, `4d3h`.
    func age(at microseconds: Int64) -> String {
        guard let since = Timestamp.time(parsing: self.since.utf8) else { return "?" }
        let seconds = max(microseconds - since.microseconds, 0) / 1_000_000
        func two(_ number: Int64) -> String { number < 10 ? "0\(number)" : "\(number)" }
        switch seconds {
        case ..<60: return "\(seconds)s"
        case ..<3_600: return "\(seconds / 60)m\(two(seconds % 60))s"
        case ..<86_400: return "\(seconds / 3_600)h\(two(seconds / 60 % 60))m"
        default: return "\(seconds / 86_400)d\(seconds / 3_600 % 24)h"
        }
    }
}

extension WallTime {
    /// The time of the day: `00:41:07`, UTC.
    var clock: String { String(Timestamp.text(of: self).dropFirst(11).prefix(8)) }
}

/// A count of bytes in at most five characters: `1023`, `1.5K`, `12M`, in powers of 1,024.
enum ByteCount {
    static func text(_ count: UInt64) -> String {
        guard count >= 1_024 else { return "\(count)" }
        let units = Array("KMGTPE")
        var (value, unit) = (count, 0)
        while value >= 1_024 << 10, unit < units.count - 1 {
            value >>= 10
            unit += 1
        }
        // Rounded down, as is what is cut off.
        let tenths = value * 10 / 1_024
        return tenths < 100 ? "\(tenths / 10).\(tenths % 10)\(units[unit])" : "\(tenths / 10)\(units[unit])"
    }
}
