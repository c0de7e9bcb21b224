import Sandboxes

/// Metrics in Prometheus' text format (version 0.0.4).
struct MetricsText {
    private var text = ""

    /// What there is to measure of a node.
    static func render(_ counters: NodeCounters, states: [SandboxRecord.State: Int]) -> String {
        var metrics = MetricsText()
        metrics.family("sandgate_sandboxes", "gauge", "Sandboxes by state.")
        for state in SandboxRecord.State.allCases {
            metrics.sample("sandgate_sandboxes", [("state", state.rawValue)], UInt64(states[state] ?? 0))
        }
        metrics.family("sandgate_events_total", "counter", "Records by event, layer, verdict and reason.")
        for (label, count) in counters.events.sorted(by: { $0.key < $1.key }) {
            metrics.sample(
                "sandgate_events_total",
                [
                    ("event", label.event), ("layer", label.layer), ("verdict", label.verdict),
                    ("reason", label.reason),
                ],
                count
            )
        }
        metrics.family("sandgate_relayed_bytes_total", "counter", "Bytes of connections that have ended.")
        metrics.sample("sandgate_relayed_bytes_total", [("direction", "up")], counters.bytesUp)
        metrics.sample("sandgate_relayed_bytes_total", [("direction", "down")], counters.bytesDown)
        metrics.family("sandgate_audit_lost_total", "counter", "Records that are not in the audit trail.")
        metrics.sample("sandgate_audit_lost_total", [], counters.lostRecords)
        return metrics.text
    }

    private mutating func family(_ name: String, _ type: String, _ help: String) {
        text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
    }

    /// Label values are words of ours: nothing in them needs escaping.
    private mutating func sample(_ name: String, _ labels: [(String, String)], _ value: UInt64) {
        let list = labels.map { "\($0)=\"\($1)\"" }.joined(separator: ",")
        text += list.isEmpty ? "\(name) \(value)\n" : "\(name){\(list)} \(value)\n"
    }
}
