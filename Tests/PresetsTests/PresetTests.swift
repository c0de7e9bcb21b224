import EgressPolicy
import Foundation
import NetPrimitives
import PolicyDocument
import Presets
import Testing

struct PresetTests {
    private static let now = WallTime(microseconds: 1_800_000_000_000_000)

    /// `policies/`, found from here.
    private static let directory = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "policies")

    private static func document(_ preset: Preset) throws -> PolicyDocument {
        try PolicyDocument.load(bytes: preset.document, format: .yaml, file: "\(preset.name).yaml", now: now)
    }

    @Test func `the program carries the files of policies and no others`() throws {
        let files = try FileManager.default.contentsOfDirectory(atPath: Self.directory.path)
        #expect(files.sorted() == Preset.all.map { "\($0.name).yaml" })
        for preset in Preset.all {
            let file = try Data(contentsOf: Self.directory.appending(path: "\(preset.name).yaml"))
            #expect(preset.document == Array(file), "\(preset.name)")
        }
    }

    @Test func `presets are found by name`() {
        for preset in Preset.all { #expect(Preset(named: preset.name) == preset) }
        #expect(Preset(named: "github.yaml") == nil)
        #expect(Preset(named: "") == nil)
    }

    @Test(arguments: Preset.all)
    func `a preset denies by default and allows no more than TCP to a port of a name`(preset: Preset) throws {
        let document = try Self.document(preset)
        #expect(document.warnings.isEmpty)
        #expect(document.policy.defaultAction == .deny)
        #expect(document.policy.mode == .enforce)
        for rule in document.policy.unphased.rules {
            #expect(rule.action == .allow, "\(rule.target)")
            #expect(rule.ports == [PortRange(443)!], "\(rule.target)")
            #expect(rule.transport == .tcp, "\(rule.target)")
            #expect(rule.expiresAt == nil, "\(rule.target)")
            if case .addresses = rule.target { Issue.record("\(rule.target): addresses change") }
        }
        let rules = document.policy.unphased.rules
        #expect(Set(rules).count == rules.count)
    }

    @Test(arguments: Preset.all)
    func `a preset does what is expected of it, and every rule is expected`(preset: Preset) throws {
        let document = try Self.document(preset)
        let policy = CompiledPolicy(document.policy)
        let expectations = try PolicyExpectation.load(bytes: preset.document, format: .yaml, file: preset.name)
        #expect(expectations.contains { $0.action == .deny })
        var used: Set<RuleReference> = []
        for expectation in expectations {
            let verdict = expectation.verdict(of: expectation.isOfSetup ? policy : policy.locked(), at: Self.now)
            #expect(expectation.isMet(by: verdict), "\(preset.name):\(expectation.line): \(expectation.text)")
            if let rule = verdict.rule { used.insert(rule) }
        }
        #expect(used.count == document.policy.unphased.rules.count, "rules that no expectation speaks of")
    }

    private static func isRule(_ line: Substring) -> Bool { line.drop { $0 == " " }.hasPrefix("- {action") }

    @Test(arguments: Preset.all)
    func `every rule has a comment that says why`(preset: Preset) {
        let lines = String(decoding: preset.document, as: UTF8.self).split(separator: "\n")
        #expect(lines[0].hasPrefix("# "))
        #expect(preset.summary.hasSuffix("."), "the first line stands alone in a list: \(preset.summary)")
        for (index, line) in lines.enumerated() where Self.isRule(line) {
            // Rules of one purpose may share the comment above the first.
            let above = lines[..<index].last { !Self.isRule($0) }
            #expect(above?.drop { $0 == " " }.hasPrefix("# ") == true, "\(preset.name): \(line)")
        }
    }
}
