public import EgressCore
import EgressPolicy
import NetPrimitives

/// The short form of an event, for people who watch a run on standard error.
public enum HumanLine {
    /// One line without a newline, such as `sandgate: denied evil.example:443 (tls-sni, default)`; `nil` for events
    /// that nobody needs to be told of. The same refusal gives the same line, so that repetitions can be left out.
    public static func text(for event: AuditEvent, colour: Bool) -> String? {
        if event.kind == .auditLost {
            // Of what the kernel refuses, only so much has a record: the count is in the trail.
            if event.layer == .ip { return "sandgate: more was refused than is recorded one by one" }
            let count = event.count ?? 1
            return "sandgate: "
                + Style.red.paint("\(count) audit record\(count == 1 ? " was" : "s were") lost", if: colour)
        }
        guard let verdict = event.verdict, event.tellsOfRefusal else { return nil }
        let word =
            verdict.action == .deny
            ? Style.red.paint("denied", if: colour) : Style.yellow.paint("would deny", if: colour)
        var why = [event.layer?.rawValue, verdict.reason.rawValue].compactMap { $0 }.joined(separator: ", ")
        if let rule = verdict.rule { why += ": \(rule.place)" }
        return "sandgate: \(word) \(Destination(of: event).text) " + Style.dim.paint("(\(why))", if: colour)
    }
}

/// Where denied traffic was going, as far as it is known.
struct Destination: Hashable {
    /// The name as the sandbox gave it.
    var host: String?
    /// The address; only where no name is known, or where the name alone does not say what was refused.
    var address: IPAddress?
    /// The port.
    var port: UInt16?
    /// IANA protocol number.
    var ipProtocol: UInt8?

    /// The destination of an event. At the kernel's layer, and where the address is what was wrong, the address is
    /// part of it; otherwise a name of many addresses is one destination.
    init(of event: AuditEvent) {
        host = event.host
        port = event.port
        ipProtocol = event.ipProtocol
        let isAboutAddress = event.verdict.map { [.nameAddressMismatch, .guardRange].contains($0.reason) } ?? false
        if host == nil || event.layer == .ip || isAboutAddress { address = event.address }
    }

    /// `evil.example:443`, `[2001:db8::1]:22`, `203.0.113.5:53/udp`, `203.0.113.5:443 [evil.example]`, with whatever
    /// cannot be printed escaped.
    var text: String {
        guard let address else {
            return host.map { Printable.name($0) + suffix } ?? "unknown destination" + suffix
        }
        let number = port != nil && address.family == .v6 ? "[\(address)]" : "\(address)"
        guard let host, IPAddress(host) != address else { return number + suffix }
        return "\(number)\(suffix) [\(Printable.name(host))]"
    }

    private var suffix: String {
        let portText = port.map { ":\($0)" } ?? ""
        guard let ipProtocol, ipProtocol != TransportProtocol.tcp.rawValue else { return portText }
        return portText + "/" + protocolName(ipProtocol)
    }
}
