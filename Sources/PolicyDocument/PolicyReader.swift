import EgressPolicy
import NetPrimitives

/// Makes a policy of a document's tree. Nothing is guessed: whatever is not understood is a problem, and all problems
/// are found in one go.
struct PolicyReader {
    private typealias Position = DocumentNode.Position

    private let file: String
    private let now: WallTime
    private(set) var problems: [Problem] = []
    private(set) var warnings: [Problem] = []
    /// Where each rule stands that was read without a problem.
    private(set) var rulePlaces: [PolicyDocument.Place] = []
    /// The same of the rules of the set-up phase.
    private(set) var setupPlaces: [PolicyDocument.Place] = []
    private(set) var setupPlace: PolicyDocument.Place?
    private(set) var defaultPlace: PolicyDocument.Place?

    init(file: String, now: WallTime) {
        self.file = file
        self.now = now
    }

    mutating func report(_ position: DocumentNode.Position, _ path: String, _ message: String) {
        problems.append(problem(position, path, message))
    }

    private mutating func warn(_ position: Position, _ path: String, _ message: String) {
        warnings.append(problem(position, path, message))
    }

    private func place(_ position: Position, _ path: String) -> PolicyDocument.Place {
        PolicyDocument.Place(line: position.line, column: position.column, path: path)
    }

    private func problem(_ position: Position, _ path: String, _ message: String) -> Problem {
        Problem(file: file, line: position.line, column: position.column, path: path, message: message)
    }
}

// MARK: - The document

extension PolicyReader {
    private static let policyKeys = ["defaultAction", "default_action", "mode", "egress", "setup"]
    private static let setupKeys = ["egress", "expiresAt", "ttl"]
    private static let ruleKeys = ["action", "target", "ports", "protocol", "expiresAt", "ttl", "comment"]

    /// The policy of a bare object, of a `networkPolicy` key or of a create request.
    mutating func readDocument(_ root: DocumentNode?) -> Policy {
        guard let root, !root.isNull else { return Policy() }
        guard case .mapping(let members) = root.value else {
            let hint = if case .sequence = root.value { ": rules stand under egress" } else { "" }
            report(root.position, "", "expected a policy, found \(root.kind)\(hint)")
            return Policy()
        }
        let stated = members.filter { $0.key == "networkPolicy" }
        guard let member = stated.first else {
            if members.isEmpty || members.contains(where: { Self.policyKeys.contains($0.key) }) {
                return readPolicy(root, "")
            }
            report(
                root.position,
                "",
                "no policy here: expected networkPolicy, or defaultAction, mode and egress; {} denies everything"
            )
            return Policy()
        }
        for repeated in stated.dropFirst() { report(repeated.position, "networkPolicy", "duplicate key") }
        for stray in members where Self.policyKeys.contains(stray.key) && stray.key != "mode" {
            report(stray.position, stray.key, "stands beside networkPolicy, where it has no effect: move it inside")
        }
        return readPolicy(member.value, "networkPolicy")
    }

    /// A policy's mapping; `null` denies everything.
    mutating func readPolicy(_ node: DocumentNode, _ path: String) -> Policy {
        var policy = Policy()
        guard !node.isNull else { return policy }
        guard let members = members(of: node, path, allowed: Self.policyKeys) else { return policy }
        var hasDefault = false
        for member in members {
            let path = join(path, member.key)
            switch member.key {
            case "defaultAction", "default_action":
                if hasDefault { report(member.position, path, "defaultAction and default_action are the same key") }
                hasDefault = true
                defaultPlace = place(member.position, path)
                guard !member.value.isNull, member.value.text != "" else { continue }
                policy.defaultAction = choice(member.value, path) ?? .deny
            case "mode":
                guard !member.value.isNull else { continue }
                policy.mode = choice(member.value, path) ?? .enforce
            case "setup":
                setupPlace = place(member.position, path)
                policy.setup = readSetup(member.value, path)
            default:
                policy.rules = readRules(member.value, path)
            }
        }
        if policy.setup != nil, policy.defaultAction == .allow, let setupPlace {
            let position = Position(line: setupPlace.line, column: setupPlace.column)
            report(
                position,
                setupPlace.path,
                "has no effect beside defaultAction allow: it widens what denies by default"
            )
        }
        return policy
    }

    /// The set-up phase; `null` is none.
    private mutating func readSetup(_ node: DocumentNode, _ path: String) -> SetupPhase? {
        guard !node.isNull else { return nil }
        let before = problems.count
        guard let members = members(of: node, path, allowed: Self.setupKeys) else { return nil }
        let permanent = rulePlaces
        rulePlaces = []
        defer { (rulePlaces, setupPlaces) = (permanent, rulePlaces) }
        var setup = SetupPhase(rules: [], endsAt: now.advanced(bySeconds: SetupPhase.usualSeconds))
        var endKey: String?
        for member in members {
            let path = join(path, member.key)
            switch member.key {
            case "egress": setup.rules = readRules(member.value, path)
            case _ where member.value.isNull: break
            default: setup.endsAt = readEnd(member, path, &endKey) ?? setup.endsAt
            }
        }
        let isSound = problems.count == before
        for (rule, place) in zip(setup.rules, rulePlaces) where isSound && rule.action == .deny {
            report(
                Position(line: place.line, column: place.column),
                join(place.path, "action"),
                "a set-up phase only allows: what is never to be reached stands in the policy's own egress"
            )
        }
        if isSound, setup.rules.isEmpty {
            report(node.position, join(path, "egress"), "missing: expected the rules that hold until the lock")
        }
        if setup.endsAt <= now, endKey != nil {
            warn(node.position, join(path, endKey!), "has passed: the set-up phase is over")
        }
        return setup
    }

    /// When something ends, as `expiresAt` or `ttl`; one of them, and not both.
    private mutating func readEnd(_ member: DocumentNode.Member, _ path: String, _ stated: inout String?) -> WallTime? {
        if let stated {
            report(member.position, path, "stands beside \(stated): only one of them is accepted")
        }
        stated = member.key
        return member.key == "ttl" ? readDuration(member.value, path) : readTime(member.value, path)
    }

    /// A list of rules.
    mutating func readRules(_ node: DocumentNode, _ path: String) -> [Rule] {
        guard !node.isNull else { return [] }
        guard case .sequence(let elements) = node.value else {
            report(node.position, path, "expected a list of rules, found \(node.kind)")
            return []
        }
        guard elements.count <= DocumentLimits.rules else {
            report(node.position, path, "\(elements.count) rules: at most \(DocumentLimits.rules) are accepted")
            return []
        }
        return elements.enumerated().compactMap { readRule($1, "\(path)[\($0)]") }
    }

    /// A list of targets.
    mutating func readTargets(_ node: DocumentNode) -> [Target] {
        readList(node) { reader, element, path in reader.readTarget(element, path) }
    }

    /// A list of strings.
    mutating func readTexts(_ node: DocumentNode) -> [String] {
        readList(node) { reader, element, path in reader.text(element, path) }
    }

    private mutating func readList<Element>(
        _ node: DocumentNode,
        _ read: (inout PolicyReader, DocumentNode, String) -> Element?
    ) -> [Element] {
        guard case .sequence(let elements) = node.value else {
            report(node.position, "", "expected a list of targets, found \(node.kind)")
            return []
        }
        return elements.enumerated().compactMap { read(&self, $1, "[\($0)]") }
    }
}

// MARK: - Rules

extension PolicyReader {
    private mutating func readRule(_ node: DocumentNode, _ path: String) -> Rule? {
        guard let members = members(of: node, path, allowed: Self.ruleKeys) else { return nil }
        var action: RuleAction?
        var target: Target?
        var rule = Rule(.deny, .addresses(IPPrefix(host: IPAddress(v4: 0))))
        var expiryKey: String?
        for member in members {
            let (value, path) = (member.value, join(path, member.key))
            switch member.key {
            case "action": action = choice(value, path)
            case "target": target = readTarget(value, path)
            case _ where value.isNull: break
            case "ports": rule.ports = readPorts(value, path)
            case "protocol":
                rule.transport = readTransport(value, path)
                rule.statesAnyTransport = rule.transport == nil
            case "comment": rule.comment = text(value, path).map(Self.withoutMarks)
            default: rule.expiresAt = readEnd(member, path, &expiryKey)
            }
        }
        for key in ["action", "target"] where !members.contains(where: { $0.key == key }) {
            // OpenSandbox has rules of ports alone.
            let everywhere = key == "target" && !rule.ports.isEmpty
            let hint = everywhere ? ": every address is 0.0.0.0/0 and ::/0, in a rule each" : ""
            report(node.position, join(path, key), "missing\(hint)")
        }
        guard let action, let target else { return nil }
        rule.action = action
        rule.target = target
        reviewRule(rule, node.position, path)
        rulePlaces.append(place(node.position, path))
        return rule
    }

    private mutating func reviewRule(_ rule: Rule, _ position: Position, _ path: String) {
        if let expiry = rule.expiresAt, expiry <= now {
            warn(position, join(path, "expiresAt"), "has passed: the rule has no effect")
        }
        guard rule.action == .allow else { return }
        switch rule.target {
        case .subdomains(let parent), .label(_, _, let parent):
            if PublicSuffixes.contains(parent) {
                warn(
                    position,
                    join(path, "target"),
                    "\"\(rule.target)\" allows names of anybody: everybody can get one below \"\(parent)\""
                )
            }
            fallthrough
        case .name:
            if rule.transport == .udp && rule.ports.isEmpty {
                warn(position, path, "allows nothing: for a name UDP is open only on ports that are listed")
            }
        case .addresses: break
        }
    }

    private mutating func readTarget(_ node: DocumentNode, _ path: String) -> Target? {
        guard let text = text(node, path) else { return nil }
        do {
            return try Target(parsing: text)
        } catch {
            report(node.position, path, "\(error)")
            return nil
        }
    }

    /// A list of ports and ranges.
    mutating func readPorts(_ node: DocumentNode, _ path: String) -> [PortRange] {
        guard case .sequence(let elements) = node.value else {
            report(node.position, path, "expected a list of ports, as in [443, \"8000-8100\"], found \(node.kind)")
            return []
        }
        if elements.isEmpty { report(node.position, path, "an empty list: leave ports out to mean every port") }
        return elements.enumerated().compactMap { index, element in
            let text: String? = if case .number(let digits) = element.value { digits } else { element.text }
            if let range = text.flatMap({ PortRange(parsing: $0) }) { return range }
            report(
                element.position,
                "\(path)[\(index)]",
                "expected a port of 1...65535 or a range such as \"8000-8100\", found \(element.kind)"
            )
            return nil
        }
    }

    private mutating func readTransport(_ node: DocumentNode, _ path: String) -> TransportProtocol? {
        switch node.text?.lowercased() {
        case "tcp": return .tcp
        case "udp": return .udp
        case "any": return nil
        default:
            report(node.position, path, "expected tcp, udp or any, found \(node.kind)")
            return nil
        }
    }

    mutating func readDuration(_ node: DocumentNode, _ path: String) -> WallTime? {
        guard let seconds = node.text.flatMap(InternetTime.seconds) else {
            report(node.position, path, "expected a duration such as 30s, 10m, 1h or 2d, found \(node.kind)")
            return nil
        }
        return now.advanced(bySeconds: seconds)
    }

    /// A time as in RFC 3339.
    mutating func readTime(_ node: DocumentNode, _ path: String) -> WallTime? {
        guard let time = node.text.flatMap(InternetTime.parse) else {
            report(
                node.position,
                path,
                "expected a time as in RFC 3339, such as 2026-12-01T00:00:00Z, found \(node.kind)"
            )
            return nil
        }
        return time
    }
}

// MARK: - Parts

extension PolicyReader {
    func join(_ path: String, _ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

    /// The members of a mapping that have a known key and are the first with it.
    mutating func members(of node: DocumentNode, _ path: String, allowed: [String]) -> [DocumentNode.Member]? {
        guard case .mapping(let members) = node.value else {
            report(node.position, path, "expected a mapping, found \(node.kind)")
            return nil
        }
        var seen: Set<String> = []
        return members.filter { member in
            let isNew = seen.insert(member.key).inserted
            if !isNew {
                report(member.position, join(path, member.key), "duplicate key")
            } else if !allowed.contains(member.key) {
                let names = allowed.filter { $0 != "default_action" }
                report(
                    member.position,
                    join(path, member.key),
                    "unknown key: expected \(Spelling.expectation(of: names, for: member.key))"
                )
                return false
            }
            return isNew
        }
    }

    /// The text of a string.
    mutating func text(_ node: DocumentNode, _ path: String) -> String? {
        if let text = node.text { return text }
        report(node.position, path, "expected a string, found \(node.kind)")
        return nil
    }

    /// Text without the byte order marks that it begins with: YAML's reader takes one for its own, so that they would be
    /// fewer each time it is read.
    private static func withoutMarks(_ text: String) -> String {
        String(text.unicodeScalars.drop { $0 == "\u{FEFF}" })
    }

    /// One of an enumeration's words, in any case.
    private mutating func choice<Choice: RawRepresentable & CaseIterable>(_ node: DocumentNode, _ path: String)
        -> Choice?
    where Choice.RawValue == String {
        if let found = node.text.flatMap({ Choice(rawValue: $0.lowercased()) }) { return found }
        let names = Choice.allCases.map(\.rawValue).joined(separator: " or ")
        report(node.position, path, "expected \(names), found \(node.kind)")
        return nil
    }
}
