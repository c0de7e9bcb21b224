import EgressPolicy
import FoundationEssentials
import NetPrimitives
import PolicyDocument
import Testing

/// How a set-up phase is written and read.
@Suite struct SetupPhaseTests {
    private static let now = WallTime(microseconds: 1_700_000_000_000_000)
    private static let text = """
        networkPolicy:
          setup:
            ttl: 15m
            egress:
              - {action: allow, target: "*.pypi.example", ports: [443]}
          egress:
            - {action: allow, target: api.example}
        """

    private func load(_ text: String, _ format: PolicyDocument.Format = .yaml, now: WallTime = Self.now) throws
        -> PolicyDocument
    {
        try PolicyDocument.load(bytes: Array(text.utf8), format: format, file: "p", now: now)
    }

    private func problems(_ text: String) -> [String] {
        do {
            return try load(text).warnings.map { "warning: \($0)" }
        } catch {
            return (error as? DocumentError)?.problems.map(\.description) ?? ["\(error)"]
        }
    }

    @Test func itIsRead() throws {
        let document = try load(Self.text)
        let phase = try #require(document.policy.setup)
        #expect(phase.rules.map { "\($0.target)" } == ["*.pypi.example"])
        #expect(phase.endsAt == Self.now.advanced(bySeconds: 900))
        #expect(document.policy.rules.map { "\($0.target)" } == ["api.example"])
        #expect(document.rulePlaces.map(\.line) == [7] && document.setupPlaces.map(\.line) == [5])
        #expect(document.setupPlace?.path == "networkPolicy.setup")
    }

    @Test func withoutATimeItLastsAnHour() throws {
        let phase = try #require(try load("setup: {egress: [{action: allow, target: a}]}").policy.setup)
        #expect(phase.endsAt == Self.now.advanced(bySeconds: 3_600))
        #expect(try load("setup:\n").policy == Policy())
    }

    @Test(arguments: [
        ("setup: []", "p:1:8: setup: expected a mapping, found a list"),
        (
            "setup: {egres: []}",
            "p:1:9: setup.egres: unknown key: expected one of egress, expiresAt, ttl; did you mean egress?"
        ),
        ("setup: {}", "p:1:8: setup.egress: missing: expected the rules that hold until the lock"),
        ("setup: {egress: []}", "p:1:8: setup.egress: missing: expected the rules that hold until the lock"),
        (
            "setup: {egress: [{action: deny, target: a}]}",
            "p:1:18: setup.egress[0].action: a set-up phase only allows: what is never to be reached stands in the "
                + "policy's own egress"
        ),
        (
            "setup: {ttl: 1h, expiresAt: 2030-01-01T00:00:00Z, egress: [{action: allow, target: a}]}",
            "p:1:18: setup.expiresAt: stands beside ttl: only one of them is accepted"
        ),
        (
            "setup: {ttl: soon, egress: [{action: allow, target: a}]}",
            "p:1:14: setup.ttl: expected a duration such as 30s, 10m, 1h or 2d, found soon"
        ),
        (
            "setup: {egress: [{action: allow, target: a, tll: 1h}]}",
            "p:1:45: setup.egress[0].tll: unknown key: expected one of action, target, ports, protocol, expiresAt, ttl, "
                + "comment; did you mean ttl?"
        ),
        (
            "setup: {egress: [{action: allow, target: a}], egress: []}",
            "p:1:9: egress: duplicate key"
        ),
        (
            "defaultAction: allow\nsetup: {egress: [{action: allow, target: a}]}",
            "p:2:1: setup: has no effect beside defaultAction allow: it widens what denies by default"
        ),
        (
            "networkPolicy: {}\nsetup: {egress: [{action: allow, target: a}]}",
            "p:2:1: setup: stands beside networkPolicy, where it has no effect: move it inside"
        ),
        (
            "setup: {expiresAt: 2020-01-01T00:00:00Z, egress: [{action: allow, target: a}]}",
            "warning: p:1:8: setup.expiresAt: has passed: the set-up phase is over"
        ),
    ])
    func whatIsNotMeantIsTold(_ text: String, _ expected: String) {
        #expect(problems(text) == [expected])
    }

    @Test func itIsRefusedWhereThereCanBeNone() throws {
        let document = try load(Self.text)
        let error = #expect(throws: DocumentError.self) { try document.refuseSetup(file: "p", "not here") }
        #expect(error?.problems.map(\.description) == ["p:2:3: networkPolicy.setup: not here"])
        try load("egress: []").refuseSetup(file: "p", "not here")
    }

    @Test func itReadsBackAsItIsWritten() throws {
        let policy = try load(Self.text).policy
        // As a record on the disk is read: times that have passed are no error, and none counts from now.
        let long = WallTime(microseconds: .min)
        #expect(try load(PolicyDocument.yaml(of: policy), now: long).policy == policy)
        #expect(try load(PolicyDocument.json(of: policy), .json, now: long).policy == policy)
        let encoded = String(decoding: try JSONEncoder().encode(policy), as: UTF8.self)
        #expect(try load(encoded, .json, now: long).policy == policy)
    }

    @Test func itIsFormatted() throws {
        func format(_ text: String, _ format: PolicyDocument.Format) throws -> String {
            let done = try PolicyFormatter.format(bytes: Array(text.utf8), format: format, file: "p", now: Self.now)
            return String(decoding: done.bytes, as: UTF8.self)
        }
        let yaml = "setup:\n  egress: # why\n    - {target: A.example, action: ALLOW}\n  ttl: 1h\n"
        #expect(
            try format(yaml, .yaml) == "setup:\n  egress: # why\n    - {action: allow, target: a.example}\n  ttl: 1h\n"
        )
        let json = try format(#"{"setup":{"egress":[{"target":"A","action":"Allow"}],"ttl":"1h"},"egress":[]}"#, .json)
        #expect(
            json == """
                {
                  "egress": [],
                  "setup": {
                    "ttl": "1h",
                    "egress": [
                      {"action": "allow", "target": "a"}
                    ]
                  }
                }

                """
        )
        #expect(try format(json, .json) == json)
    }

    @Test(arguments: [
        ("setup: {ttl: 2d, egress: [{action: allow, target: b}]}", ["setup long-setup"]),
        ("setup: {expiresAt: 2020-01-01T00:00:00Z, egress: [{action: allow, target: b}]}", ["setup setup-ended"]),
        ("setup: {egress: [{action: allow, target: 0.0.0.0/0}]}", ["setup.egress[0] whole-internet"]),
        (
            "egress: [{action: deny, target: '*.a'}]\nsetup: {egress: [{action: allow, target: b.a}]}",
            ["setup.egress[0] shadowed-rule"]
        ),
        ("setup: {egress: [{action: allow, target: b}]}", []),
    ])
    func itIsLinted(_ text: String, _ expected: [String]) throws {
        let findings = try load(text).lint(at: Self.now, expiringWithin: 60)
        #expect(findings.map { "\($0.place.path) \($0.code.rawValue)" } == expected)
        #expect(findings.allSatisfy { $0.rule == nil })
    }

    @Test func expectationsSayOfWhichPhaseTheyAre() throws {
        let text = "expect: {deny: [a], setup: {allow: [a], deny: [b]}}"
        let expectations = try PolicyExpectation.load(bytes: Array(text.utf8), format: .yaml, file: "p")
        let found = expectations.map { "\($0.action) \($0.text) \($0.isOfSetup)" }
        #expect(found == ["deny a false", "allow a true", "deny b true"])
        let error = #expect(throws: DocumentError.self) {
            try PolicyExpectation.load(bytes: Array("expect: {setup: [a]}".utf8), format: .yaml, file: "p")
        }
        #expect(
            error?.problems.map(\.description)
                == ["p:1:17: expect.setup: expected the lists allow and deny, found a list"]
        )
    }
}
