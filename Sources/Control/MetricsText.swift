import Datapath
import EgressCore
import Sandboxes
import Webhook

/// Metrics in Prometheus' text format (version 0.0.4). Label values are words of ours, so that what sandboxes do makes
/// neither more of them nor other ones.
struct MetricsText {
    private var text = ""

    /// What there is to measure of a node.
    static func render(
        _ counters: NodeCounters,
        states: [SandboxRecord.State: Int],
        _ measurements: NodeMeasurements,
        webhook: WebhookCounters? = nil
    ) -> String {
        var metrics = MetricsText()
        metrics.renderLife(states, measurements)
        metrics.renderCounters(counters)
        metrics.renderLatencies(measurements.latencies)
        if let webhook { metrics.renderWebhook(webhook) }
        return metrics.text
    }

    private mutating func renderLife(_ states: [SandboxRecord.State: Int], _ measurements: NodeMeasurements) {
        family("sandgate_sandboxes", "gauge", "Sandboxes by state.")
        for state in SandboxRecord.State.allCases {
            sample("sandgate_sandboxes", [("state", state.rawValue)], states[state] ?? 0)
        }
        family("sandgate_connections", "gauge", "Live TCP connections and UDP flows of all sandboxes.")
        sample("sandgate_connections", [("protocol", "tcp")], measurements.connections)
        sample("sandgate_connections", [("protocol", "udp")], measurements.datagramFlows)
        family("sandgate_pins", "gauge", "Addresses that are pinned for a name, in all sandboxes.")
        sample("sandgate_pins", [], measurements.pins)
        family("sandgate_audit_queue_records", "gauge", "Records that wait to be written.")
        sample("sandgate_audit_queue_records", [], measurements.queuedRecords)
    }

    private mutating func renderCounters(_ counters: NodeCounters) {
        family("sandgate_events_total", "counter", "Records by event, layer, verdict and reason.")
        for (label, count) in counters.events.sorted(by: { $0.key < $1.key }) {
            sample(
                "sandgate_events_total",
                [
                    ("event", label.event), ("layer", label.layer), ("verdict", label.verdict),
                    ("reason", label.reason),
                ],
                count
            )
        }
        family("sandgate_relayed_bytes_total", "counter", "Bytes of connections that have ended.")
        sample("sandgate_relayed_bytes_total", [("direction", "up")], counters.bytesUp)
        sample("sandgate_relayed_bytes_total", [("direction", "down")], counters.bytesDown)
        family("sandgate_audit_lost_total", "counter", "Records that are not in the audit trail.")
        sample("sandgate_audit_lost_total", [], counters.lostRecords)
    }

    private mutating func renderWebhook(_ counters: WebhookCounters) {
        family("sandgate_webhook_queue_records", "gauge", "Refusals that wait to be told.")
        sample("sandgate_webhook_queue_records", [], counters.queued)
        family("sandgate_webhook_delivered_total", "counter", "Refusals that were told.")
        sample("sandgate_webhook_delivered_total", [], counters.delivered)
        family("sandgate_webhook_lost_total", "counter", "Refusals that will never be told.")
        sample("sandgate_webhook_lost_total", [], counters.lost)
        family("sandgate_webhook_failures_total", "counter", "Requests to the webhook that failed.")
        sample("sandgate_webhook_failures_total", [], counters.failures)
    }

    private mutating func renderLatencies(_ latencies: LatencyCounts) {
        let answers = "sandgate_dns_answer_seconds"
        family(answers, "histogram", "From a program's DNS query to its answer, by what became of it.")
        for outcome in LatencyCounts.AnswerOutcome.allCases {
            histogram(answers, [("outcome", outcome.rawValue)], latencies.answers[outcome])
        }
        let pins = "sandgate_pin_seconds"
        family(pins, "histogram", "The kernel's transaction that pins addresses, before the answer is released.")
        histogram(pins, [], latencies.pins)
        let connections = "sandgate_connect_seconds"
        family(connections, "histogram", "From accepting a TCP connection to being connected to its server.")
        histogram(connections, [], latencies.connections)
    }
}

// MARK: - The format

extension MetricsText {
    private mutating func family(_ name: String, _ type: String, _ help: String) {
        text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
    }

    /// Label values are words of ours: nothing in them needs escaping.
    private mutating func sample(_ name: String, _ labels: [(String, String)], _ value: some CustomStringConvertible) {
        let list = labels.map { "\($0)=\"\($1)\"" }.joined(separator: ",")
        text += list.isEmpty ? "\(name) \(value)\n" : "\(name){\(list)} \(value)\n"
    }

    /// Each bucket counts what the ones before it do as well.
    private mutating func histogram(_ name: String, _ labels: [(String, String)], _ histogram: LatencyHistogram) {
        var count: UInt64 = 0
        for index in LatencyHistogram.bounds.indices {
            count += histogram.counts[index]
            let bound = Self.seconds(LatencyHistogram.bounds[index])
            sample("\(name)_bucket", labels + [("le", bound)], count)
        }
        sample("\(name)_bucket", labels + [("le", "+Inf")], histogram.total)
        sample("\(name)_sum", labels, Self.seconds(histogram.sum))
        sample("\(name)_count", labels, histogram.total)
    }

    /// Nanoseconds as seconds: all digits that count and no exponent, so that a bound is always the same text.
    static func seconds(_ nanoseconds: UInt64) -> String {
        let (whole, rest) = nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        guard rest > 0 else { return "\(whole)" }
        let digits = String(rest)
        let padded = String(repeating: "0", count: 9 - digits.utf8.count) + digits
        return "\(whole).\(padded[..<(padded.lastIndex { $0 != "0" }.map(padded.index(after:)) ?? padded.endIndex)])"
    }
}
