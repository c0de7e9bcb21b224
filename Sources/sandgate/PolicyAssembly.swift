import EgressPolicy
import Glibc
import NetPrimitives
import PolicyDocument
import Presets
import Reactor

/// Puts the policy of a run together: `--deny`, then `--allow`, then the file's rules, then the presets' and what was
/// detected. So the file can take back what a preset allows, and no preset what the file denies.
struct PolicyAssembly {
    let file: String?
    let presets: [String]
    /// What `--detect` found; `nil` without it.
    let detected: [Rule]?
    let allow: [String]
    let deny: [String]
    /// Allowed in set-up alone, besides what the file says.
    let setupAllow: [String]
    let isReport: Bool

    func assemble() throws -> Policy {
        var policy = try file.map { try PolicyFile.load($0) }?.policy ?? Policy()
        let denied = try deny.map { try Self.rule(.deny, $0, option: "--deny") }
        let allowed = try allow.map { try Self.rule(.allow, $0, option: "--allow") }
        let preset = try presets.map { try Self.policy(ofPreset: $0) }
        if policy.defaultAction == .allow, !presets.isEmpty || detected != nil {
            let option = presets.isEmpty ? "--detect" : "--preset"
            throw SetupError("\(option) has no effect: the policy's defaultAction is allow")
        }
        policy.rules = denied + allowed + policy.rules + preset.flatMap(\.rules) + (detected ?? [])
        policy.setup = try setup([policy.setup] + preset.map(\.setup), under: policy.defaultAction)
        if isReport { policy.mode = .report }
        return policy
    }

    /// One set-up phase of all there are, which ends when the first of them does; `nil` when there is none.
    private func setup(_ phases: [SetupPhase?], under defaultAction: RuleAction) throws -> SetupPhase? {
        let phases = phases.compactMap { $0 }
        let allowed = try setupAllow.map { try Self.rule(.allow, $0, option: "--setup-allow") }
        let rules = allowed + phases.flatMap(\.rules)
        guard !rules.isEmpty else { return nil }
        guard defaultAction == .deny else {
            throw SetupError("--setup-allow has no effect: the policy's defaultAction is allow")
        }
        let usual = WallTime.current.advanced(bySeconds: SetupPhase.usualSeconds)
        return SetupPhase(rules: rules, endsAt: phases.map(\.endsAt).min() ?? usual)
    }

    private static func policy(ofPreset name: String) throws -> Policy {
        let preset = try Preset.find(name)
        return try PolicyDocument.load(bytes: preset.document, format: .yaml, file: "\(name).yaml", now: .current)
            .policy
    }

    /// `TARGET`, `TARGET:PORT` or `[IPv6]:PORT`.
    private static func rule(_ action: RuleAction, _ text: String, option: String) throws -> Rule {
        let (target, ports) = try split(text, option: option)
        do {
            return Rule(action, try Target(parsing: target), ports: ports)
        } catch {
            throw SetupError("\(option) \(text): \(error)")
        }
    }

    /// The target and the ports in `TARGET`, `TARGET:PORT` or `[IPv6]:PORT`. `option` is for messages.
    static func split(_ text: String, option: String) throws -> (String, [PortRange]) {
        // Whoever parses the target says what a URL lacks to be one.
        guard !text.contains("://") else { return (text, []) }
        let colons = text.utf8.count { $0 == UInt8(ascii: ":") }
        guard let colon = text.lastIndex(of: ":"), colons == 1 || text.hasPrefix("[") else { return (text, []) }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        let port = text[text.index(after: colon)...]
        guard let ports = PortRange(parsing: String(port)) else {
            throw SetupError(
                "\(option) \(text): expected a port of 1...65535 or a range such as 8000-8100 after the colon, found \(port)"
            )
        }
        return (String(host), [ports])
    }
}
