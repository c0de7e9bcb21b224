import PolicyDocument
import Testing

@Suite struct SpellingTests {
    private static let keys = ["action", "target", "ports", "protocol", "expiresAt", "ttl", "comment"]

    @Test(
        arguments: [
            ("acton", "action"), ("prots", "ports"), ("port", "ports"), ("PORTS", "ports"), ("expires_at", "expiresAt"),
            ("expireAt", "expiresAt"), ("tll", "ttl"), ("protocl", "protocol"), ("com", "comment"),
            ("comments", "comment"),
            // Nothing comes near, or more than one.
            ("colour", nil), ("tt", nil), ("p", nil), ("", nil), ("host", nil),
            (String(repeating: "ports", count: 1_000), nil),
        ] as [(String, String?)]
    )
    func `the nearest name is proposed, if one comes near`(word: String, name: String?) {
        #expect(Spelling.nearest(to: word, among: Self.keys) == name)
    }

    @Test func `one that begins so is meant, if it is the only one`() {
        let presets = ["claude-code", "codex", "gemini-cli", "node-install"]
        #expect(Spelling.nearest(to: "claude", among: presets) == "claude-code")
        #expect(Spelling.nearest(to: "node", among: presets) == "node-install")
        #expect(Spelling.nearest(to: "c", among: presets) == nil)
    }

    @Test func `what is expected ends with it`() {
        #expect(
            Spelling.expectation(of: ["mode", "egress"], for: "egres") == "one of mode, egress; did you mean egress?"
        )
        #expect(Spelling.expectation(of: ["mode", "egress"], for: "colour") == "one of mode, egress")
    }
}
