import EgressPolicy
public import NetPrimitives

/// What a reviewer should look at in a valid policy.
public struct LintFinding: Hashable, Sendable {
    /// How much it matters.
    public enum Severity: String, Hashable, Sendable, CaseIterable, Comparable {
        /// Worth knowing.
        case note
        /// Probably not meant, or more than is needed.
        case warning
        /// The policy does not do what it says.
        case error

        /// Lesser before greater.
        public static func < (left: Self, right: Self) -> Bool { left.rank < right.rank }

        private var rank: Int { Self.allCases.firstIndex(of: self)! }
    }

    /// What kind of finding it is; the raw values are for scripts and stay as they are.
    public enum Code: String, Hashable, Sendable, CaseIterable {
        /// The file holds no valid policy.
        case invalidPolicy = "invalid-policy"
        /// What no rule matches is allowed.
        case defaultAllow = "default-allow"
        /// Denials are recorded, not carried out.
        case reportMode = "report-mode"
        /// An earlier rule, or several together, cover the rule: it never decides.
        case shadowedRule = "shadowed-rule"
        /// The rule stands there twice.
        case duplicateRule = "duplicate-rule"
        /// An earlier rule covers the rule, but something small depends on it.
        case coveredRule = "covered-rule"
        /// The rule has expired.
        case expiredRule = "expired-rule"
        /// The rule expires soon.
        case expiresSoon = "expires-soon"
        /// A wildcard right below a name below which anybody can have one.
        case publicSuffix = "public-suffix"
        /// Every address is allowed.
        case wholeInternet = "whole-internet"
        /// A large part of all addresses is allowed.
        case broadAddresses = "broad-addresses"
        /// More ports are listed than anybody uses.
        case widePorts = "wide-ports"
        /// A guard range lies inside the allowed addresses, and stays closed.
        case guardRangeClosed = "guard-range-closed"
        /// A guard range is opened.
        case opensGuardRange = "opens-guard-range"
        /// The rule covers nothing.
        case noEffect = "no-effect"
        /// No destination of the audit matches the rule.
        case unmatchedRule = "unmatched-rule"
        /// The set-up phase lasts long if nobody ends it.
        case longSetup = "long-setup"
        /// The set-up phase is over.
        case setupEnded = "setup-ended"
    }

    /// What kind of finding it is.
    public let code: Code
    /// How much it matters.
    public let severity: Severity
    /// Where: the rule, or the document's begin.
    public let place: PolicyDocument.Place
    /// The rule's position in the policy's own list; `nil` where it is not about one of these.
    public internal(set) var rule: Int?
    /// What is wrong.
    public let message: String
    /// What to do about it.
    public let advice: String
    /// The rules that cover the rule, as paths: `egress[0]`, `setup.egress[1]`; empty where it is not about that.
    public let coveredBy: [String]

    /// A finding from its parts.
    public init(
        _ code: Code,
        _ severity: Severity,
        _ place: PolicyDocument.Place,
        rule: Int? = nil,
        _ message: String,
        advice: String,
        coveredBy: [String] = []
    ) {
        self.code = code
        self.severity = severity
        self.place = place
        self.rule = rule
        self.message = message
        self.advice = advice
        self.coveredBy = coveredBy
    }
}

extension PolicyDocument {
    /// Everything that a reviewer should look at, in the order of the document.
    ///
    /// `seconds` is how long before its end a rule is told to expire soon. `matched` holds the positions of rules that
    /// something recorded matched, those of the set-up phase behind the policy's own; without it nothing is said of that.
    public func lint(at now: WallTime, expiringWithin seconds: Int64, matched: Set<Int>? = nil) -> [LintFinding] {
        // The phase's rules are reviewed as if they were the policy's last: that is where they are tried.
        let flat = policy.unphased
        var lint = PolicyLint(document: self, rules: flat.rules, now: now, soon: now.advanced(bySeconds: seconds))
        lint.reviewWhole()
        for (index, rule) in flat.rules.enumerated() { lint.review(rule, index) }
        for shadow in CompiledPolicy(policy).shadows() { lint.add(shadow) }
        if let matched {
            let told = Set(lint.findings.filter { PolicyLint.deadCodes.contains($0.code) }.compactMap(\.rule))
            for index in flat.rules.indices where !matched.contains(index) && !told.contains(index) {
                lint.add(
                    .unmatchedRule,
                    .note,
                    index,
                    "matched nothing that the audit recorded",
                    "remove it, unless something needs it that did not run"
                )
            }
        }
        return lint.findings.enumerated()
            .sorted { ($0.element.rule ?? -1, $0.offset) < ($1.element.rule ?? -1, $1.offset) }
            .map { finding in
                var finding = finding.element
                if let rule = finding.rule, rule >= policy.rules.count { finding.rule = nil }
                return finding
            }
    }
}

/// Gathers findings of one document.
private struct PolicyLint {
    /// A rule that these are told of matches nothing anyway.
    static let deadCodes: Set<LintFinding.Code> = [.shadowedRule, .duplicateRule, .expiredRule, .noEffect]
    /// More ports than this are many.
    private static let manyPorts = 1024
    /// A set-up that takes longer than this is long, in seconds.
    private static let longSetup: Int64 = 86_400
    /// Of the rules that cover another together so many are named.
    private static let shownCovers = 4
    private static let metadata = IPAddress("169.254.169.254")!

    let document: PolicyDocument
    /// The policy's rules, and behind them those of its set-up phase.
    let rules: [Rule]
    let now: WallTime
    let soon: WallTime
    private(set) var findings: [LintFinding] = []

    init(document: PolicyDocument, rules: [Rule], now: WallTime, soon: WallTime) {
        self.document = document
        self.rules = rules
        self.now = now
        self.soon = soon
    }

    mutating func add(
        _ code: LintFinding.Code,
        _ severity: LintFinding.Severity,
        _ index: Int?,
        _ message: String,
        _ advice: String,
        coveredBy covers: [Int] = []
    ) {
        let place = index.map(place) ?? document.defaultPlace ?? PolicyDocument.Place(line: 1, column: 1, path: "")
        let named = index.map { "\(name($0)) \(message)" } ?? message
        findings.append(
            LintFinding(
                code,
                severity,
                place,
                rule: index,
                named,
                advice: advice,
                coveredBy: covers.map(reference)
            )
        )
    }

    private func place(_ index: Int) -> PolicyDocument.Place {
        let own = document.policy.rules.count
        let (places, position, list) =
            index < own ? (document.rulePlaces, index, "egress") : (document.setupPlaces, index - own, "setup.egress")
        return places.indices.contains(position)
            ? places[position] : PolicyDocument.Place(line: 1, column: 1, path: "\(list)[\(position)]")
    }

    /// The rule as messages refer to it: `egress[3]`.
    private func reference(_ index: Int) -> String {
        let own = document.policy.rules.count
        return index < own ? "egress[\(index)]" : "setup.egress[\(index - own)]"
    }

    private func name(_ index: Int) -> String {
        let rule = rules[index]
        return "\(rule.action.rawValue) \(rule.target)"
    }

    private mutating func reviewSetup(_ setup: SetupPhase) {
        let place = document.setupPlace ?? PolicyDocument.Place(line: 1, column: 1, path: "setup")
        let end = InternetTime.text(of: setup.endsAt)
        func add(_ code: LintFinding.Code, _ message: String, _ advice: String) {
            findings.append(LintFinding(code, .warning, place, message, advice: advice))
        }
        if setup.endsAt <= now {
            add(.setupEnded, "the set-up phase is over since \(end)", "remove it, or give it a ttl instead of a time")
        } else if setup.endsAt > now.advanced(bySeconds: Self.longSetup) {
            add(
                .longSetup,
                "the set-up phase lasts until \(end) if nobody locks it",
                "give it a ttl that set-up takes at most, such as 15m"
            )
        }
    }

    mutating func reviewWhole() {
        if let setup = document.policy.setup { reviewSetup(setup) }
        if document.policy.defaultAction == .allow {
            add(
                .defaultAllow,
                .warning,
                nil,
                "defaultAction is allow: whatever no rule denies is reachable over TCP",
                "write defaultAction: deny, and a rule for each thing that is needed"
            )
        }
        if document.policy.mode == .report {
            add(
                .reportMode,
                .note,
                nil,
                "the policy is in report mode: all but guard ranges passes",
                "write mode: enforce when the records show that nothing needed is denied"
            )
        }
    }

    mutating func review(_ rule: Rule, _ index: Int) {
        if let expiry = rule.expiresAt, expiry <= now {
            add(
                .expiredRule,
                .warning,
                index,
                "has expired: it has no effect since \(InternetTime.text(of: expiry))",
                "remove it, or renew its expiresAt"
            )
        } else if let expiry = rule.expiresAt, expiry <= soon {
            add(
                .expiresSoon,
                .note,
                index,
                "expires at \(InternetTime.text(of: expiry))",
                "renew its expiresAt if it is needed for longer"
            )
        }
        guard rule.action == .allow else { return }
        reviewPorts(rule, index)
        switch rule.target {
        case .subdomains(let parent), .label(_, _, let parent):
            if PublicSuffixes.contains(parent) {
                add(
                    .publicSuffix,
                    .warning,
                    index,
                    "allows names of anybody: everybody can get one below \"\(parent)\"",
                    "name the hosts that are meant"
                )
            }
        case .name: break
        case .addresses(let block): reviewAddresses(block, index)
        }
    }

    private mutating func reviewPorts(_ rule: Rule, _ index: Int) {
        let isAddress = if case .addresses = rule.target { true } else { false }
        if !isAddress, rule.transport == .udp, rule.ports.isEmpty {
            add(
                .noEffect,
                .warning,
                index,
                "allows nothing: for a name UDP is open only on ports that are listed",
                "list the ports"
            )
        }
        let count = PortRange.merged(rule.ports).reduce(0) { $0 + Int($1.upper) - Int($1.lower) + 1 }
        if count > Self.manyPorts {
            add(.widePorts, .warning, index, "lists \(count) ports", "list those that are used, such as ports: [443]")
        }
    }

    private mutating func reviewAddresses(_ block: IPPrefix, _ index: Int) {
        if GuardRanges.common.contains(where: { $0.contains(block) }) {
            let isMetadata = block.contains(Self.metadata)
            add(
                .opensGuardRange,
                isMetadata ? .warning : .note,
                index,
                isMetadata
                    ? "opens the address of cloud metadata services, which hand out credentials"
                    : "opens addresses of a guard range, where the node's own network may be",
                "keep it only if the sandbox needs just these"
            )
            return
        }
        if block.length == 0 {
            add(
                .wholeInternet,
                .warning,
                index,
                "allows every IPv\(block.family == .v4 ? "4" : "6") address outside of guard ranges",
                "name the hosts that are meant, or the blocks of their addresses"
            )
            return
        }
        if block.length < (block.family == .v4 ? 8 : 20) {
            add(
                .broadAddresses,
                .warning,
                index,
                "allows a 2^\(block.length)th of all IPv\(block.family == .v4 ? "4" : "6") addresses",
                "name the hosts that are meant, or the blocks of their addresses"
            )
        }
        let closed = GuardRanges.common.filter { block.contains($0) }
        if !closed.isEmpty {
            add(
                .guardRangeClosed,
                .warning,
                index,
                "never opens \(closed.map(\.description).joined(separator: ", ")), which are guard ranges",
                "leave them out; only a rule that lies inside a guard range opens a part of it"
            )
        }
    }

    mutating func add(_ shadow: RuleShadow) {
        let rule = rules[shadow.index]
        if let expiry = rule.expiresAt, expiry <= now { return }
        let others = shadow.coveredBy.filter { rules[$0].action != rule.action }
        let covers = names(ofCovers: shadow.coveredBy)
        let (stand, they) =
            shadow.coveredBy.count == 1
            ? ("stands before it and covers it", "that rule") : ("stand before it and together cover it", "those rules")
        func add(_ code: LintFinding.Code, _ severity: LintFinding.Severity, _ message: String, _ advice: String) {
            self.add(code, severity, shadow.index, message, advice, coveredBy: shadow.coveredBy)
        }
        switch shadow.remainder {
        case .nameBudget:
            add(
                .coveredRule,
                .note,
                "decides nothing behind \(covers); it only keeps the name out of the budget of names below the wildcard",
                "remove it, unless the name must resolve when that budget is spent"
            )
        case .nodeAddress:
            add(
                .coveredRule,
                .note,
                "decides nothing behind \(covers), unless the address is the node's own",
                "remove it, unless the sandbox must reach the node"
            )
        case .datagrams:
            add(
                .shadowedRule,
                .error,
                "never decides a connection: \(covers) \(stand); only datagrams are left to it",
                "move it before \(they) if it is meant to hold, or say protocol: udp"
            )
        case nil where shadow.isDuplicate: add(.duplicateRule, .warning, "says the same as \(covers)", "remove it")
        case nil:
            // Exceptions in front of what says the same are no contradiction.
            let isContrary = others.count == shadow.coveredBy.count
            add(
                .shadowedRule,
                isContrary ? .error : .warning,
                "never decides: \(covers) \(stand)",
                isContrary ? "move it before \(they) if it is meant to hold, else remove it" : "remove it"
            )
        }
    }

    /// `egress[0] (allow a.example, line 4) and egress[2] (…)`; of many the first ones.
    private func names(ofCovers covers: [Int]) -> String {
        let shown = covers.count > Self.shownCovers + 1 ? covers.prefix(Self.shownCovers) : covers[...]
        var names = shown.map { "\(reference($0)) (\(name($0)), line \(place($0).line))" }
        if shown.count < covers.count { names.append("\(covers.count - shown.count) others") }
        guard names.count > 1 else { return names[0] }
        return names.dropLast().joined(separator: ", ") + " and " + names.last!
    }
}
