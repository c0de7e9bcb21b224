import EgressPolicy
import NetPrimitives
import PolicyDocument
import Testing

@Suite struct PolicyFormatterTests {
    private let now = WallTime(microseconds: 1_700_000_000_000_000)

    private func format(_ text: String, _ format: PolicyDocument.Format = .yaml) throws -> String {
        let bytes = try PolicyFormatter.format(bytes: Array(text.utf8), format: format, file: "p", now: now)
        return String(decoding: bytes, as: UTF8.self)
    }

    @Test(arguments: [
        ("egress: [{target: A.example, action: ALLOW}]", "egress: [{action: allow, target: a.example}]\n"),
        (
            "egress:\r\n- {target: a.example., action: allow} # why  \r\n",
            "egress:\n- {action: allow, target: a.example} # why\n"
        ),
        (
            "# ünï\negress: [{comment: 'don''t }', target: '*.B.example', action: deny}]\n",
            "# ünï\negress: [{action: deny, target: '*.b.example', comment: 'don''t }'}]\n"
        ),
        (
            "egress:\n- {action: deny,\n   target: A.example} # two lines\n",
            "egress:\n- {action: deny,\n   target: a.example} # two lines\n"
        ),
        ("defaultAction: Deny\nmode: 'Enforce'\n\n\n", "defaultAction: deny\nmode: 'enforce'\n"),
        ("\u{feff}{}", "{}\n"),
        ("# nothing but this\n", "# nothing but this\n"),
    ])
    func yaml(_ text: String, _ expected: String) throws {
        #expect(try format(text) == expected)
        #expect(try format(expected) == expected)
    }

    @Test func json() throws {
        let formatted = try format(
            #"{"egress":[{"ports":[1,"2-3"],"target":"A.b","action":"Deny"}],"default_action":"deny"}"#,
            .json
        )
        #expect(
            formatted == """
                {
                  "defaultAction": "deny",
                  "egress": [
                    {"action": "deny", "target": "a.b", "ports": [1, "2-3"]}
                  ]
                }

                """
        )
        #expect(try format(formatted, .json) == formatted)
    }

    @Test func whatIsNotValidIsRefused() {
        #expect(throws: DocumentError.self) { try format("egress: 7") }
    }
}
