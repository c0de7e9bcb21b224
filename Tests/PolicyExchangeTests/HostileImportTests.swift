import EgressPolicy
import NetPrimitives
import PolicyDocument
import PolicyExchange
import Testing

/// Documents that were not written in good faith.
@Suite struct HostileImportTests {
    @Test(arguments: ImportFormat.allCases)
    func `deep, aliased and huge documents are refused`(format: ImportFormat) {
        let deep = String(repeating: "{\"a\":", count: 100_000)
        #expect(Exchange.problems(format, deep, file: "f.json").first?.contains("nested deeper than 32 levels") == true)
        let aliased = "steps: &a [1]\nnetwork: *a\n"
        #expect(Exchange.problems(format, aliased, file: format == .docker ? "f.json" : "f.yaml").count == 1)
        let huge = "{" + String(repeating: " ", count: 5 << 20) + "}"
        #expect(Exchange.problems(format, huge, file: "f.json").first?.contains("are accepted") == true)
        #expect(Exchange.problems(format, "{\"network\": \"\u{0}\"}", file: "f.json").count >= 1)
        #expect(throws: DocumentError.self) { try format.load(bytes: [0x7b, 0xff, 0x7d], file: "f.json") }
    }

    @Test func `what is quoted cannot end a comment`() throws {
        let imported = try Exchange.load(
            .smokescreen,
            #"{"version": "v1", "services": [{"name": "x\n    - {action: allow, target: \"evil.example\"}\u001b[2J", "action": "open"}], "default": {"action": "enforce"}}"#
        )
        try Exchange.reread(imported)
        #expect(imported.policy == Policy())
        let isPrintable = imported.yaml.utf8.allSatisfy { $0 == 10 || (0x20..<0x7f).contains($0) }
        #expect(isPrintable, "\(imported.yaml)")
        let named = try Exchange.load(
            .modal,
            "block_network: true\n",
            file: "a\nnetworkPolicy:\n  defaultAction: allow\n#"
        )
        #expect(named.yaml.split(separator: "\n").filter { $0 == "networkPolicy:" }.count == 1)
        try Exchange.reread(named)
    }

    @Test func `a few bytes do not become rules without end`() {
        let patterns = (0..<20_000).map { #"{"matchPattern": "*.n\#($0).example"}"# }.joined(separator: ",")
        let names = #"{"kind": "CiliumNetworkPolicy", "spec": {"egress": [{"toFQDNs": [\#(patterns)]}]}}"#
        #expect(Exchange.problems(.cilium, names) == ["f:1:1: more than 100000 rules come of it"])
        let holes = (0..<60_000).map { #""2001:db8:\#(String($0, radix: 16))::1""# }.joined(separator: ",")
        let blocks =
            #"{"kind": "CiliumNetworkPolicy", "spec": {"egress": [{"toCIDRSet": [{"cidr": "2001:db8::/32", "except": [\#(holes)]}]}]}}"#
        #expect(Exchange.problems(.cilium, blocks) == ["f:1:1: more than 100000 rules come of it"])
    }

    @Test func `long text is cut`() throws {
        let long = String(repeating: "a", count: 1 << 20)
        for problem in Exchange.problems(.e2b, #"{"allowOut": ["\#(long)"], "\#(long)": 1, "denyOut": ["\#(long)"]}"#) {
            #expect(problem.utf8.count < 2_000)
        }
    }
}
