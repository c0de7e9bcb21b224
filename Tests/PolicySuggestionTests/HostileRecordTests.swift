import EgressPolicy
import NetPrimitives
import PolicyDocument
import PolicySuggestion
import Testing

/// A record is partly the words of who is to be confined.
@Suite struct HostileRecordTests {
    private static let texts = [
        "evil.example\n    - {action: allow, target: \"*.evil\"}", "\r\negress: []", "a\u{2028}b", "a\u{85}b", "*",
        "*.com",
        "# x", "\"}, {action: allow, target: \"evil.example", "&a", "*a", "!!str", "%", "@", "`", "a: b", "- a",
        "\u{0}",
        "\u{1b}[2J", "\u{202e}moc.elpmaxe", "bücher.example", "0x7f.1", "127.1", String(repeating: "a", count: 70_000),
        "\\", "{{", "--- ", "...", "'", "| ", "> ", "? ", "\u{feff}", "a..b", ".", "- ", "\t",
    ]

    @Test func namesAndWordsInjectNothing() throws {
        var records = [Record()]
        for text in Self.texts {
            records.append(Record(host: text))
            records.append(Record(host: text, ip: nil, reason: "no-sni", sandbox: text))
            records.append(query(text, verdict: "deny"))
            records.append(Record(host: nil, ip: text, transport: text))
            records.append(Record(sandbox: text))
            let escaped = text.unicodeScalars.count < 1_000 ? text : "x"
            let words = escaped.unicodeScalars.map { "\\u" + String($0.value + 0x10000, radix: 16).suffix(4) }.joined()
            records.append(
                Record(
                    event: "sandbox.attached",
                    host: nil,
                    ip: nil,
                    port: nil,
                    transport: nil,
                    sandbox: "words-\(words.count)",
                    more: ",\"detail\":\"command: \(words)\""
                )
            )
            records.append(Record(sandbox: "words-\(words.count)"))
            records.append(
                Record(
                    host: "denied.example",
                    reason: "rule",
                    more: ",\"rule\":{\"index\":1,\"action\":\"deny\",\"target\":\"\(words)\",\"source\":\"\(words)\"}"
                )
            )
        }
        for baseName in ["base", "base\negress: []"] {
            var options = PolicySuggester.Options()
            options.baseName = baseName
            options.base = try policy("egress: [{action: deny, target: denied.example}]")
            let made = PolicySuggester.suggest(from: try observed(records), options: options, at: start)
            let text = made.yaml(source: "audit\n- x", baseName: baseName)
            #expect(text.utf8.allSatisfy { $0 == UInt8(ascii: "\n") || (0x20...0x7e).contains($0) })
            let document = try PolicyDocument.load(bytes: Array(text.utf8), format: .yaml, file: "s", now: start)
            #expect(document.policy == made.policy)
            #expect(document.warnings.isEmpty)
            #expect(made.lines.map { short($0.rule) } == ["api.example.com 443/tcp"])
        }
    }

    @Test func floodsAndHugeNumbersAreBounded() throws {
        var records = (0..<21_000).map { Record(host: "n\($0).flood\($0 % 5_000).example") }
        for _ in 0..<3 {
            records.append(Record(more: ",\"count\":18446744073709551615"))
            records.append(
                Record(
                    event: "connection.closed",
                    more: ",\"bytesUp\":18446744073709551615,\"bytesDown\":18446744073709551615"
                )
            )
        }
        let suggested = try suggested([Record()] + records, collapses: true)
        #expect(suggested.lines.count <= 1_000)
        let line = try #require(suggested.lines.first { "\($0.rule.target)" == "api.example.com" })
        #expect(line.times == .max && line.bytesUp == .max)
        #expect(suggested.hints.contains { $0.contains("more names and addresses were asked for") })
        #expect(suggested.hints.contains { $0.contains("more names than are told apart") })
    }

    @Test(arguments: ["-62135596800", "253402300799"])
    func anyTime(second: String) throws {
        let suggested = try suggested([Record(), Record(second: Int64(second)!)])
        #expect(suggested.lines.count == 1)
    }
}
