import EgressPolicy
import NetPrimitives
import PolicyDocument

/// Lines whose names stand below one name, and what a wildcard in their place would be.
struct Siblings {
    /// Fewer names than this are better named.
    static let least = 3
    /// A common beginning or end that is shorter says nothing.
    private static let leastCommon = 3

    private struct Family: Hashable {
        let parent: DomainName
        let ports: [PortRange]
        let transport: TransportProtocol?
    }

    private struct Wildcard {
        let target: Target
        let members: [Int]
        let parent: DomainName
    }

    private let lines: [SuggestedPolicy.Line]
    private var wildcards: [Wildcard] = []
    private var refusals: [String] = []

    /// Looks for siblings among `lines`.
    init(of lines: [SuggestedPolicy.Line]) {
        self.lines = lines
        var families: [Family: [Int]] = [:]
        for (index, line) in lines.enumerated() {
            guard let name = line.rule.target.exactName, let parent = name.parent else { continue }
            let family = Family(parent: parent, ports: line.rule.ports, transport: line.rule.transport)
            families[family, default: []].append(index)
        }
        for (family, members) in families.sorted(by: { $0.value[0] < $1.value[0] }) where members.count >= Self.least {
            if let reason = Self.objection(to: family.parent) {
                refusals.append("\(members.count) names below \(family.parent) stay as they are: \(reason)")
                continue
            }
            let target = target(for: family, members)
            let covered = lines.indices.filter { lines[$0].rule.isWithin(target, family.ports, family.transport) }
            guard !covered.contains(where: { lines[$0].isSuspicious }) else {
                refusals.append("\(members.count) names below \(family.parent) stay as they are: one is to be reviewed")
                continue
            }
            wildcards.append(Wildcard(target: target, members: covered, parent: family.parent))
        }
    }

    /// Why no wildcard below `parent` is made; `nil` when one may be.
    private static func objection(to parent: DomainName) -> String? {
        if PublicSuffixes.contains(parent) { return "anybody can get a name there" }
        if SharedHosts.kind(of: parent) != nil { return "what is there is shared with others" }
        return nil
    }

    /// `api-*.example.com` where the names have so much in common, else every name below the parent.
    private func target(for family: Family, _ members: [Int]) -> Target {
        let labels = members.compactMap { lines[$0].rule.target.exactName?.labels.first.map { Array($0) } }
        var prefix = labels.dropFirst().reduce(labels[0]) { Self.commonPrefix($0, $1) }
        // The numbers that were seen are not those that there are.
        while let last = prefix.last, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(last) { prefix.removeLast() }
        if prefix.count >= Self.leastCommon, labels.allSatisfy({ $0.count > prefix.count }) {
            return .label(prefix: prefix, suffix: [], parent: family.parent)
        }
        return .subdomains(of: family.parent)
    }

    private static func commonPrefix(_ one: [UInt8], _ other: [UInt8]) -> [UInt8] {
        zip(one, other).prefix { $0 == $1 }.map(\.0)
    }

    /// The lines with wildcards in place of siblings.
    var collapsed: [SuggestedPolicy.Line] {
        var replaced: Set<Int> = []
        var result: [(Int, SuggestedPolicy.Line)] = []
        // The widest first, so that what lies below another wildcard's parent is not made one of its own.
        for wildcard in wildcards.sorted(by: { $0.parent.labels.count < $1.parent.labels.count }) {
            let members = wildcard.members.filter { !replaced.contains($0) }
            guard members.count >= Self.least else { continue }
            replaced.formUnion(members)
            result.append((members[0], line(for: wildcard, members)))
        }
        result += lines.indices.filter { !replaced.contains($0) }.map { ($0, lines[$0]) }
        return result.sorted { $0.0 < $1.0 }.map(\.1)
    }

    private func line(for wildcard: Wildcard, _ members: [Int]) -> SuggestedPolicy.Line {
        let names = members.compactMap { lines[$0].rule.target.exactName }
        var line = lines[members[0]]
        for index in members.dropFirst() {
            let other = lines[index]
            line.times = line.times.addingClamped(other.times)
            line.firstSeen = min(line.firstSeen, other.firstSeen)
            line.lastSeen = max(line.lastSeen, other.lastSeen)
            line.bytesUp = line.bytesUp.addingClamped(other.bytesUp)
            line.bytesDown = line.bytesDown.addingClamped(other.bytesDown)
            for sandbox in other.sandboxes where !line.sandboxes.contains(sandbox) {
                if line.sandboxes.count < Sightings.named {
                    line.sandboxes.append(sandbox)
                } else {
                    line.hasMoreSandboxes = true
                }
            }
            line.hasMoreSandboxes = line.hasMoreSandboxes || other.hasMoreSandboxes
            for program in other.programs
            where !line.programs.contains(program) && line.programs.count < Sightings.named {
                line.programs.append(program)
            }
            line.remarks += other.remarks.filter { !line.remarks.contains($0) }
        }
        line.rule.target = wildcard.target
        line.rule.ports = Set(members.flatMap { lines[$0].rule.ports }).sorted { $0.lower < $1.lower }
        line.review = []
        line.collapsed = names
        let shown = names.prefix(3).map(\.description).joined(separator: ", ")
        line.remarks.append(
            "stands for \(names.count) names that were seen (\(shown)\(names.count > 3 ? ", ..." : "")), as --collapse asks; "
                + "allows those that were not, too"
        )
        return line
    }

    /// What is to be said of siblings.
    func hints(isCollapsed: Bool) -> [String] {
        isCollapsed
            ? refusals
            : wildcards.map { "\($0.members.count) names below \($0.parent): --collapse would write \"\($0.target)\"" }
    }
}

extension Rule {
    /// Whether a rule about `target` on `ports` over `transport` makes this one, about a name, superfluous.
    fileprivate func isWithin(_ target: Target, _ ports: [PortRange], _ transport: TransportProtocol?) -> Bool {
        guard let name = self.target.exactName, self.transport == transport, self.ports.allSatisfy(ports.contains)
        else {
            return false
        }
        switch target {
        case .subdomains(let parent): return name.isBelow(parent)
        case .label(let prefix, _, let parent):
            return name.parent == parent && name.labels[0].starts(with: prefix) && name.labels[0].count >= prefix.count
        case .name, .addresses: return false
        }
    }
}
