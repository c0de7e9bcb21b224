import Datapath
import Sandboxes
import Testing
import Webhook

@testable import Control

@Suite struct MetricsTextTests {
    private func render(_ measurements: NodeMeasurements = NodeMeasurements()) -> [String] {
        MetricsText.render(NodeCounters(), states: [.running: 3], measurements).split(separator: "\n").map(String.init)
    }

    @Test(
        arguments: [
            (0, "0"), (1, "0.000000001"), (50_000, "0.00005"), (2_500_000, "0.0025"), (1_000_000_000, "1"),
            (2_500_000_000, "2.5"), (10_000_000_000, "10"), (1_000_000_001, "1.000000001"),
            (.max, "18446744073.709551615"),
        ] as [(UInt64, String)]
    )
    func secondsHaveNoExponent(_ nanoseconds: UInt64, _ text: String) {
        #expect(MetricsText.seconds(nanoseconds) == text)
    }

    @Test func gauges() {
        var measurements = NodeMeasurements()
        measurements.connections = 4
        measurements.datagramFlows = 5
        measurements.pins = 6
        measurements.queuedRecords = 7
        let lines = render(measurements)
        #expect(lines.contains("sandgate_sandboxes{state=\"Running\"} 3"))
        #expect(lines.contains("sandgate_sandboxes{state=\"Failed\"} 0"))
        #expect(lines.contains("sandgate_connections{protocol=\"tcp\"} 4"))
        #expect(lines.contains("sandgate_connections{protocol=\"udp\"} 5"))
        #expect(lines.contains("sandgate_pins 6"))
        #expect(lines.contains("sandgate_audit_queue_records 7"))
    }

    @Test func histogramsAreThereBeforeAnythingWasCounted() {
        let lines = render().filter { $0.hasPrefix("sandgate_pin_seconds") }
        #expect(lines.count == 20)
        #expect(lines.first == "sandgate_pin_seconds_bucket{le=\"0.00005\"} 0")
        #expect(
            lines[17...] == [
                "sandgate_pin_seconds_bucket{le=\"+Inf\"} 0", "sandgate_pin_seconds_sum 0",
                "sandgate_pin_seconds_count 0",
            ]
        )
    }

    @Test func webhookIsThereWhenThereIsOne() {
        let states: [SandboxRecord.State: Int] = [:]
        let text = MetricsText.render(NodeCounters(), states: states, NodeMeasurements(), webhook: WebhookCounters())
        #expect(text.contains("\nsandgate_webhook_lost_total 0\n"))
        #expect(!render().contains { $0.contains("webhook") })
    }

    /// What is scraped is told apart by name and labels: there are as many as we made, whatever sandboxes do.
    @Test func everySampleHasAFamilyAndAName() {
        let lines = render()
        let families = Set(lines.filter { $0.hasPrefix("# TYPE") }.map { $0.split(separator: " ")[2] })
        var names: Set<Substring> = []
        for line in lines where !line.hasPrefix("#") {
            let name = line[..<(line.lastIndex(of: " ") ?? line.endIndex)]
            #expect(names.insert(name).inserted, "\(name) stands there twice")
            #expect(families.contains { name.hasPrefix($0) }, "\(name) has no type")
        }
        #expect(names.count == 152)
    }
}
