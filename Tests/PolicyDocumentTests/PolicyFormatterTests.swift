import EgressPolicy
import NetPrimitives
import PolicyDocument
import Testing

@Suite struct PolicyFormatterTests {
    private let now = WallTime(microseconds: 1_700_000_000_000_000)

    private func formatted(
        _ text: String,
        _ format: PolicyDocument.Format = .yaml
    ) throws -> PolicyFormatter.Formatted {
        try PolicyFormatter.format(bytes: Array(text.utf8), format: format, file: "p", now: now)
    }

    private func format(_ text: String, _ format: PolicyDocument.Format = .yaml) throws -> String {
        String(decoding: try formatted(text, format).bytes, as: UTF8.self)
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

    /// What is left, as `KIND LINES`.
    @Test(arguments: [
        ("egress:\n- {target: A.example, action: allow}\n", []),
        ("egress:\n- action: allow\n  target: A.example\n", []),
        (
            "egress:\n- action: allow\n  target: a.example\n- target: a.example\n  action: allow\n"
                + "- {target: a.example,\n   action: deny}\nsetup:\n  egress:\n  - ports: [1]\n    action: allow\n"
                + "    target: b.example\n",
            ["order [4, 6, 10]"]
        ),
        ("egress: # why \n- {action: allow, target: a.example, comment: 'two  \n  lines'}\n", []),
        (
            "egress: # why \n- action: allow\n  target: a.example\n  comment: |\n    two  \n    lines\n",
            ["blanks [1, 5]"]
        ),
        ("egress:\n- {action: allow, target: \"A.exam\\\n  ple\"}\n", ["spelling [2]"]),
        // YAML begins a line where the text does not, and so what is to be changed is looked for in another rule.
        (
            "# a\u{2028}\negress:\n- {target: A.example, action: allow}\n"
                + "- {target: A.example, action: allow, ports: [1]}\n",
            ["text []"]
        ),
    ])
    func whatIsLeftIsTold(_ text: String, _ expected: [String]) throws {
        let done = try formatted(text)
        #expect(done.left.map { "\($0.kind) \($0.lines)" } == expected)
        if expected == ["text []"] { #expect(done.bytes == Array(text.utf8)) }
        // It is told of a formatted text as well.
        #expect(try formatted(String(decoding: done.bytes, as: UTF8.self)) == done)
    }
}
