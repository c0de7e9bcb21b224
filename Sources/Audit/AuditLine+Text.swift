import NetPrimitives

extension AuditLine {
    /// The record for a person, without a newline: `2026-11-23T00:41:07Z sbx-1 denied  evil.example:443 [203.0.113.5]
    /// (tls-sni, default)`. What a sandbox chose is escaped.
    public func text(colour: Bool) -> String {
        var parts = [Style.dim.paint(String(Timestamp.text(of: time).prefix(19)) + "Z", if: colour)]
        if !sandbox.isEmpty { parts.append(Printable.text(sandbox)) }
        parts.append(word(colour))
        if let destination { parts.append(destination) }
        if let detail { parts.append(Style.dim.paint("(\(detail))", if: colour)) }
        return parts.joined(separator: " ")
    }

    /// What happened, padded so that destinations stand in one column.
    private func word(_ colour: Bool) -> String {
        if isReportOnly { return Style.yellow.paint("would deny", if: colour) }
        switch (verdict, event) {
        case ("deny"?, _): return Style.red.paint("denied ", if: colour)
        case ("allow"?, _): return "allowed"
        case (_, "connection.closed"): return "closed "
        default: return Printable.text(event)
        }
    }

    /// Where it was going: `evil.example:443 [203.0.113.5]`; `nil` where nothing of it is known. What a sandbox chose is
    /// escaped.
    public var destination: String? {
        let place = Printable.destination(host: host, address: address, port: port, protocolName: protocolName)
        guard let place, let host, let address, address != host else { return place }
        return "\(place) [\(Printable.text(address))]"
    }

    private var detail: String? {
        var parts = [layer, reason].compactMap { $0.map { Printable.text($0) } }
        if let rule {
            let list = Printable.text(rule.source ?? "egress")
            parts.append("\(list)[\(rule.index)] \(Printable.text(rule.action)) \(Printable.text(rule.target))")
        }
        if let bytesUp { parts.append("\(bytesUp) bytes sent") }
        if let bytesDown { parts.append("\(bytesDown) bytes received") }
        if let durationMilliseconds { parts.append("\(durationMilliseconds) ms") }
        if let count { parts.append(event == "audit.lost" ? "\(count) records" : "\(count) times") }
        if let words { parts.append(Printable.text(words)) }
        if event == "policy.changed", let policyRevision { parts.append("revision \(policyRevision)") }
        return parts.isEmpty ? nil : parts.joined(separator: ", ")
    }
}
