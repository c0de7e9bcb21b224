import EgressPolicy
import PolicyDocument
import Testing

@Suite struct SyntaxTests {
    @Test(arguments: [
        ("{", "p:1:2: expected a key in double quotes"),
        (#"{"mode": "report",}"#, "p:1:19: a comma before } is not JSON"),
        (#"{"egress": [null,]}"#, "p:1:18: a comma before ] is not JSON"),
        (#"{"egress": [,]}"#, "p:1:13: expected a JSON value"),
        (#"{"egress": NaN}"#, "p:1:12: expected a JSON value"),
        (#"{"egress": [-Infinity]}"#, "p:1:14: expected a digit"),
        (#"{"egress": [01]}"#, "p:1:14: a number does not start with 0"),
        (#"{"egress": [1.]}"#, "p:1:15: expected a digit"),
        (#"{"egress": [.5]}"#, "p:1:13: expected a JSON value"),
        (#"{'mode': 1}"#, "p:1:2: expected a key in double quotes"),
        (#"{"mode" "report"}"#, "p:1:9: expected : after the key"),
        (#"{"mode": "report" "x": 1}"#, "p:1:19: expected , or }"),
        (#"{"mode": "report"} x"#, "p:1:20: expected the end of the document"),
        ("// no\n{}", "p:1:1: expected a JSON value"),
        ("{\n  \"mode\": \"rep\n", "p:2:15: a string without a closing quote"),
        ("{\"mode\": \"a\u{1}b\"}", "p:1:12: a control character in a string"),
        (#"{"mode": "\x"}"#, "p:1:11: not an escape of JSON"),
        (#"{"mode": "\u12g4"}"#, "p:1:11: not an escape of JSON"),
        (#"{"mode": "\ud83d x"}"#, "p:1:11: half of a surrogate pair"),
        (#"{"mode": "\udc00"}"#, "p:1:11: half of a surrogate pair"),
        (#"{"ünï": nul}"#, "p:1:9: expected a JSON value"),
    ])
    func jsonIsStrict(text: String, problem: String) {
        #expect(Reading.problems(text, .json) == [problem])
    }

    @Test func jsonEscapesAreRead() throws {
        let text =
            #"{"egress": [{"action": "\u0061llow", "target": "\u0041.example", "comment": "\ud83d\ude00\/\n\b\\\""}]}"#
        let rule = try Reading.load(text, .json).policy.rules[0]
        #expect(rule.target.description == "a.example")
        #expect(rule.comment == "😀/\n\u{8}\\\"")
    }

    @Test(arguments: [
        (
            "egress:\n  - action: allow\n    target: *.github.com\n",
            "p:3:13: a value that starts with * must be quoted, as in \"*.example.com\""
        ),
        (
            "egress:\n  - action: allow\n    target: *github\n",
            "p:3:13: a value that starts with * must be quoted, as in \"*.example.com\""
        ),
        (
            "egress:\n  - action: allow\n    target: *\n",
            "p:3:13: a value that starts with * must be quoted, as in \"*.example.com\""
        ),
        (
            "egress:\n  - &rule {action: allow, target: a}\n  - *rule\n",
            "p:3:5: anchors and aliases are not accepted: write the value out"
        ),
        (
            "egress:\n  - &rule {action: allow, target: a}\n",
            "p:2:5: anchors and aliases are not accepted: write the value out"
        ),
        ("mode: !!int report\n", "p:1:7: tags are not accepted"),
        ("mode: !custom report\n", "p:1:7: tags are not accepted"),
        ("egress: !!set {}\n", "p:1:9: tags are not accepted"),
        ("? [a]\n: b\n", "p:1:3: expected a key that is a name"),
        ("mode: report\n? a: b\n: c\n", "p:2:3: expected a key that is a name"),
        ("mode: report\negress: [{[a]: b}]\n", "p:2:11: expected a key that is a name"),
        ("{{a: b}: c}\n", "p:1:2: expected a key that is a name"),
        ("a: *b\n", "p:1:4: a value that starts with * must be quoted, as in \"*.example.com\""),
        ("mode: report\n---\nmode: report\n", "p:2:1: expected one document, found another"),
        ("mode: report\nmode: enforce\n", "p:2:1: mode: duplicate key"),
        (
            "networkPolicy:\n  egress:\n    - {action: deny, target: b}\n    - action: allow\n      target: a\n      action: deny\n",
            "p:6:7: networkPolicy.egress[1].action: duplicate key"
        ),
        (
            "mode: 'report\n",
            "p:2:1: not YAML: while scanning a quoted scalar: found unexpected end of stream"
        ),
        (
            "mode: \"\\xZZ\"\n",
            "p:1:10: not YAML: while parsing a quoted scalar: did not find expected hexdecimal number"
        ),
        ("egress: [\n", "p:2:1: not YAML: while parsing a flow node: did not find expected node content"),
        (
            "\tmode: report\n",
            "p:1:1: not YAML: while scanning for the next token: found character that cannot start any token"
        ),
        ("mode: a\u{1}\n", "p:1:8: not YAML: control characters are not allowed"),
    ])
    func yamlIsPlain(text: String, problem: String) {
        #expect(Reading.problems(text, .yaml) == [problem])
    }

    @Test func nestedAliasesAreRefusedAtOnce() {
        var text = "a0: &a0 [x, x]\n"
        for level in 1..<40 { text += "a\(level): &a\(level) [*a\(level - 1), *a\(level - 1)]\n" }
        text += "? *a39\n: x\nmode: report\n"
        #expect(Reading.problems(text, .yaml) == ["p:2:10: anchors and aliases are not accepted: write the value out"])
    }

    /// Yams knows more line breaks than most programs. (Found by fuzzing: what began behind one was not looked at.)
    @Test(.timeLimit(.minutes(1)), arguments: [" ", "\n  ", "\u{85}", "\u{2028}", "\u{2029}", "\t"])
    func nestedAliasesInKeysAreRefusedAtOnce(space: String) {
        var text = "x: [\(space)&a0 {x: y},"
        for level in 1..<40 {
            let alias = "\(space)*a\(level - 1)"
            text += "\(space)&a\(level) {? {?\(alias) : 1} :\(alias), ? [\(alias),\(alias)] : 1},"
        }
        #expect(Reading.problems(text + "\(space)]\n", .yaml).first?.contains("anchors and aliases") == true)
    }

    /// (Found by fuzzing: a policy with such a comment could not be read from what was written of it.)
    @Test(arguments: ["see &a and *a", "\u{2028}&a: *a", "[&a, *a]", "R&D", "&Z *Z &a *a &b *b", "&-*- &__ *__"])
    func quotedTextMayHoldAnything(comment: String) throws {
        let rule = Rule(.allow, try Target(parsing: "*D.example.com"), comment: comment)
        let policy = Policy(rules: [rule])
        #expect(try Reading.load(PolicyDocument.yaml(of: policy), .yaml).policy == policy)
    }

    /// (Found by fuzzing: YAML's reader drops one.)
    @Test(arguments: [PolicyDocument.Format.json, .yaml])
    func commentsBeginWithNoByteOrderMark(format: PolicyDocument.Format) throws {
        let text = #"{"egress": [{"action": "deny", "target": "a", "comment": "\ufeff\ufeffx\ufeff"}]}"#
        let policy = try Reading.load(text, format).policy
        #expect(policy.rules.first?.comment == "x\u{FEFF}")
        #expect(try Reading.load(PolicyDocument.yaml(of: policy), .yaml).policy == policy)
    }

    /// A quotation mark and what combines with it are one character to Swift, and no quotation mark. (Found by fuzzing.)
    @Test func commentsMayBeginWithWhatCombines() throws {
        let rule = Rule(.deny, try Target(parsing: "a"), comment: "\u{345}ub")
        #expect(PolicyDocument.json(of: rule) == "{\"action\":\"deny\",\"target\":\"a\",\"comment\":\"\u{345}ub\"}")
        let policy = Policy(rules: [rule])
        #expect(try Reading.load(PolicyDocument.json(of: policy), .json).policy == policy)
        #expect(try Reading.load(PolicyDocument.yaml(of: policy), .yaml).policy == policy)
    }

    @Test func commentsMayHoldAllNames() throws {
        let letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-".map { "&\($0) *\($0)" }
        let text = "mode: report # " + letters.joined(separator: " ") + "\n"
        #expect(try Reading.load(text, .yaml).policy.mode == .report)
    }

    /// Yams compares keys as a whole, in each level again.
    @Test(.timeLimit(.minutes(1)), arguments: [20, 200])
    func nestedCollectionsAsKeysAreRefusedAtOnce(depth: Int) {
        let key = String(repeating: "{", count: depth) + "a: b" + String(repeating: "}: c", count: depth - 1) + "}"
        let text = String(repeating: "- \(key)\n", count: 1_000_000 / (key.utf8.count + 3))
        let problem = depth < 32 ? "p:1:4: expected a key that is a name" : "p:1:34: nested deeper than 32 levels"
        #expect(Reading.problems(text, .yaml) == [problem])
    }

    @Test(arguments: [
        "# see *.github.com & *others*\nmode: report\n", "mode: report # &x\n", "mode: \"report\" # a *b &b\n",
        "mode: report # &b *b\n",
    ])
    func commentsMayHoldAnything(text: String) throws {
        #expect(try Reading.load(text, .yaml).policy.mode == .report)
    }

    @Test func theFormatIsToldByNameThenByContent() throws {
        #expect(try Reading.load("{mode: report}", file: "p.yaml").policy.mode == .report)
        #expect(try Reading.load("{\"mode\": \"report\"}").policy.mode == .report)
        #expect(throws: DocumentError.self) { try Reading.load("{mode: report}") }
        #expect(throws: DocumentError.self) { try Reading.load("mode: report", file: "p.json") }
    }

    @Test func windowsLineEndsAreFine() throws {
        let text = "networkPolicy:\r\n  mode: report\r\n  egress:\r\n    - action: allow\r\n      target: a.example\r\n"
        #expect(try Reading.load(text).policy.rules.count == 1)
    }
}

/// Documents with bytes changed at random: read or refused, never a trap.
@Suite struct MutationTests {
    static let document = """
        {"networkPolicy": {"defaultAction": "deny", "mode": "report", "egress": [
          {"action": "allow", "target": "*.github.com", "ports": [443, "8000-8100"], "protocol": "tcp",
           "expiresAt": "2026-12-01T00:00:00Z", "comment": "\\u00fc \\ud83d\\ude00"},
          {"action": "deny", "target": "192.0.2.0/24", "ttl": "10m"}]}}
        """

    /// YAML has more line breaks than most programs: where the two count differently, the key's place is a guess. (Found by
    /// fuzzing: the search for it came back to itself without end.)
    @Test(arguments: ["\u{85}", "\u{2028}", "\u{2029}"]) func linesThatOnlyYAMLSees(lineBreak: String) {
        for text in ["mode: \"x\(lineBreak)y\"\nk: 1\nk: 2\n", "{mode: \"x\(lineBreak)y\", k: 1, k: 2}\n"] {
            let problems = Reading.problems(text, .yaml)
            #expect(problems.count == 1)
            #expect(problems[0].hasSuffix("k: duplicate key"))
        }
    }

    @Test(arguments: [PolicyDocument.Format.json, .yaml]) func nothingTraps(format: PolicyDocument.Format) {
        var state: UInt64 = 7
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((state >> 33) % UInt64(bound))
        }
        let characters = Array("{}[]\",:\\*&!|>-?#%@` \n\t\u{0}019eE.~aZ\u{7f}".utf8) + [0x80, 0xc3, 0xff]
        var accepted = 0
        for _ in 0..<4_000 {
            var bytes = Array(Self.document.utf8)
            for _ in 0...random(3) {
                let index = random(bytes.count)
                switch random(3) {
                case 0: bytes[index] = characters[random(characters.count)]
                case 1: bytes.remove(at: index)
                default: bytes.insert(characters[random(characters.count)], at: index)
                }
            }
            if random(8) == 0 { bytes.removeLast(random(bytes.count)) }
            let document = try? PolicyDocument.load(bytes: bytes, format: format, file: "p", now: Reading.now)
            if document != nil { accepted += 1 }
        }
        #expect((1..<4_000).contains(accepted))
    }
}
