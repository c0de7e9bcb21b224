import EgressPolicy
import NetPrimitives
import PolicyDocument

/// The egress part of one CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy.
///
/// Read from Cilium's documentation, "Layer 3 Policies" and "Layer 4 Policies" (docs.cilium.io, security/policy), and source
/// (cilium/cilium, pkg/fqdn/matchpattern/matchpattern.go):
///
/// * `egressDeny` goes before `egress`; what neither lists is denied. An empty rule lists nothing.
/// * `toFQDNs.matchName` is exactly that name. In `matchPattern`, `*` is any number of characters but dots, so
///   `*.example.com` is one label below it; `**.` in front is any number of labels; `*` alone is every name.
/// * `toCIDR`, and `toCIDRSet` with `except`, do not count for the cluster's own pods and nodes.
/// * `toPorts` without a protocol is any protocol; without `toPorts` every port and protocol.
enum CiliumImporter {
    private static let peers = ["toFQDNs", "toCIDR", "toCIDRSet", "toEntities"]
    private static let kinds = ["CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"]

    static func read(_ root: DocumentNode, _ reader: inout ImportReader) {
        guard let object = reader.members(of: root, "") else { return }
        if let kind = object["kind"] {
            if !kinds.contains(kind.value.text ?? "") {
                return reader.expect(kinds.joined(separator: " or "), at: kind.value, "kind")
            }
        } else {
            return reader.report(root.position, "kind", "missing: expected \(kinds.joined(separator: " or "))")
        }
        if let version = object["apiVersion"], !(version.value.text ?? "").hasPrefix("cilium.io/") {
            return reader.expect("cilium.io/v2", at: version.value, "apiVersion")
        }
        var path = "spec"
        var spec = object["spec"]?.value
        if let specs = object["specs"], !specs.value.isNull {
            let elements = reader.elements(of: specs.value, "specs", expected: "rules")
            guard spec == nil, elements.count == 1 else {
                return reader.report(
                    specs.position,
                    "specs",
                    "they may select different pods: expected one, found \(elements.count); import them one at a time"
                )
            }
            path = "specs[0]"
            spec = elements[0]
        }
        guard let spec else { return reader.report(root.position, path, "missing: expected a rule with egress") }
        read(spec: spec, path, &reader)
    }

    private static func read(spec: DocumentNode, _ path: String, _ reader: inout ImportReader) {
        let known = [
            "endpointSelector", "nodeSelector", "ingress", "ingressDeny", "egress", "egressDeny", "labels",
            "description",
            "enableDefaultDeny", "log",
        ]
        guard let rule = reader.members(of: spec, path, known: known) else { return }
        guard rule["egress"] != nil || rule["egressDeny"] != nil else {
            return reader.report(
                spec.position,
                ImportReader.join(path, "egress"),
                "missing: this policy does not restrict egress"
            )
        }
        if let defaults = rule["enableDefaultDeny"], !defaults.value.isNull {
            let path = ImportReader.join(path, "enableDefaultDeny")
            if let egress = reader.members(of: defaults.value, path)?["egress"],
                reader.bool(egress.value, ImportReader.join(path, "egress")) == false
            {
                reader.report(
                    egress.position,
                    ImportReader.join(path, "egress"),
                    "false: what no rule lists is not denied; expected true"
                )
            }
        }
        for key in ["ingress", "ingressDeny"] {
            guard let member = rule[key], !member.value.isNull else { continue }
            reader.note(
                .leftOut,
                member.position,
                ImportReader.join(path, key),
                "it is about connections to the sandbox"
            )
        }
        for (key, action) in [("egressDeny", RuleAction.deny), ("egress", .allow)] {
            guard let member = rule[key] else { continue }
            let path = ImportReader.join(path, key)
            for (index, node) in reader.elements(of: member.value, path, expected: "rules").enumerated() {
                CiliumRuleReader(action: action, path: "\(path)[\(index)]").read(node, &reader)
                if reader.isOverfull { return }
            }
        }
    }
}

/// One element of `egress` or `egressDeny`.
private struct CiliumRuleReader {
    let action: RuleAction
    let path: String

    /// Ports and transport of a rule of ours.
    private struct Service {
        var ports: [PortRange]
        var transport: TransportProtocol?
    }

    private static let known = [
        "toFQDNs", "toCIDR", "toCIDRSet", "toEntities", "toPorts", "toEndpoints", "toServices", "toNodes", "toGroups",
        "icmps", "authentication", "toRequires",
    ]

    func read(_ node: DocumentNode, _ reader: inout ImportReader) {
        guard let members = reader.members(of: node, path, known: Self.known) else { return }
        // What is null is not there, to Cilium too.
        let rule = members.filter { !$0.value.value.isNull }
        if action == .deny, !isWhole(rule, node, &reader) { return }
        if let requires = rule["toRequires"] {
            return reader.report(
                requires.position,
                ImportReader.join(path, "toRequires"),
                "limits every other rule by labels, which are not known here: remove it, as Cilium 1.19 did"
            )
        }
        if rule["toFQDNs"] != nil, let other = ["toCIDR", "toCIDRSet", "toEntities"].compactMap({ rule[$0] }).first {
            return reader.report(
                other.position,
                ImportReader.join(path, other.key),
                "stands beside toFQDNs, with which Cilium does not accept it"
            )
        }
        if action == .deny, let names = rule["toFQDNs"] {
            return reader.report(
                names.position,
                ImportReader.join(path, "toFQDNs"),
                "egressDeny has none: expected toCIDR, toCIDRSet or toEntities"
            )
        }
        leaveOut(rule, &reader)
        if action == .allow, let member = rule["authentication"] {
            return reader.note(.leftOut, member.position, path, "it holds for peers that authenticate each other")
        }
        // An empty list limits nothing.
        var toPorts = rule["toPorts"]
        if case .sequence(let list)? = toPorts?.value.value, list.isEmpty { toPorts = nil }
        let services = toPorts.map { self.services($0, &reader) } ?? [Service(ports: [], transport: nil)]
        let peers = ["toFQDNs", "toCIDR", "toCIDRSet", "toEntities"].compactMap { rule[$0] }
        let isElsewhere = ["toEndpoints", "toServices", "toNodes", "toGroups", "icmps"].contains { rule[$0] != nil }
        if peers.isEmpty, !isElsewhere, let ports = toPorts {
            if action == .allow {
                reader.note(
                    .narrowed,
                    ports.position,
                    ImportReader.join(path, "toPorts"),
                    "every destination on these ports, by address: a name resolves only where a rule has the name"
                )
            }
            addresses(IPPrefix(IPAddress(v4: 0), length: 0), services, ports.position, path, &reader)
            addresses(IPPrefix(IPAddress(v6: 0), length: 0), services, ports.position, path, &reader)
        }
        for peer in peers {
            let path = ImportReader.join(self.path, peer.key)
            for (index, element) in reader.elements(of: peer.value, path, expected: "peers").enumerated() {
                let path = "\(path)[\(index)]"
                switch peer.key {
                case "toFQDNs": name(element, services, path, &reader)
                case "toCIDR":
                    guard let text = element.text else {
                        reader.expect("a CIDR", at: element, path)
                        continue
                    }
                    guard let prefix = reader.prefix(text, element.position, path) else { continue }
                    addresses(prefix, services, element.position, path, &reader)
                case "toCIDRSet": set(element, services, path, &reader)
                default: entity(element, services, path, &reader)
                }
                if reader.isOverfull { return }
            }
        }
    }

    /// Whether a denial says what it denies: none is to be lost because a list of it is empty.
    private func isWhole(
        _ rule: [String: DocumentNode.Member],
        _ node: DocumentNode,
        _ reader: inout ImportReader
    ) -> Bool {
        let empty = rule.values.first { if case .sequence(let list) = $0.value.value { list.isEmpty } else { false } }
        if let empty {
            reader.report(
                empty.position,
                ImportReader.join(path, empty.key),
                "an empty list: what is denied cannot be told"
            )
        } else if rule.isEmpty {
            reader.report(node.position, path, "an empty rule: what is denied cannot be told")
        }
        return empty == nil && !rule.isEmpty
    }

    /// What speaks of a cluster's parts.
    private func leaveOut(_ rule: [String: DocumentNode.Member], _ reader: inout ImportReader) {
        let elsewhere = [
            "toEndpoints": "pods of the cluster (names are answered by Sandgate itself: no rule for DNS is needed)",
            "toServices": "services of the cluster", "toNodes": "nodes of the cluster",
            "toGroups": "addresses that a cloud provider tells", "icmps": "ICMP is not let out",
        ]
        for (key, message) in elsewhere.sorted(by: { $0.key < $1.key }) {
            guard let member = rule[key] else { continue }
            let path = ImportReader.join(path, key)
            if action == .deny {
                reader.report(
                    member.position,
                    path,
                    "\(message): not known here, and to leave a denial out could allow more; expected toCIDR, toCIDRSet or toEntities"
                )
            } else {
                reader.note(.leftOut, member.position, path, message)
            }
        }
    }
}

// MARK: - Peers

extension CiliumRuleReader {
    private func name(_ node: DocumentNode, _ services: [Service], _ path: String, _ reader: inout ImportReader) {
        guard let selector = reader.members(of: node, path, known: ["matchName", "matchPattern"]) else { return }
        guard let member = selector.values.first, selector.count == 1, let text = member.value.text else {
            return reader.report(node.position, path, "expected matchName or matchPattern, a string")
        }
        let path = ImportReader.join(path, member.key)
        if member.key == "matchName" {
            guard let target = reader.host(text, member.value.position, path) else { return }
            guard case .name = target else {
                return reader.report(member.value.position, path, "expected a name, found \"\(Excerpt.text(text))\"")
            }
            return names([target], services, &reader)
        }
        guard text.utf8.allSatisfy({ DomainName.fold($0) != nil || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "*") })
        else {
            return reader.report(
                member.value.position,
                path,
                "expected letters, digits, ., -, _ and *, found \"\(Excerpt.text(text))\""
            )
        }
        var pattern = text.hasSuffix(".") ? String(text.dropLast()) : text
        let stars = pattern.prefix { $0 == "*" }.count
        if stars == pattern.count {
            return reader.note(
                .leftOut,
                member.value.position,
                path,
                "every name: list the names, or use defaultAction: allow"
            )
        }
        let isAnyDepth = stars >= 2 && pattern.dropFirst(stars).hasPrefix(".")
        // Elsewhere several stars in a row are one.
        pattern = pattern.reduce(into: "") { if $1 != "*" || $0.last != "*" { $0.append($1) } }
        let target: Target
        do {
            target = try Target(parsing: pattern)
        } catch .misplacedWildcard, .patternWithoutParent, .everything {
            return reader.note(
                .leftOut,
                member.value.position,
                path,
                "\"\(text)\": one * may stand in the left-most label only, with a name to the right of it"
            )
        } catch {
            return reader.report(member.value.position, path, "\(error)")
        }
        switch target {
        case .subdomains(let parent) where !isAnyDepth:
            reader.remark(
                "\"\(text)\" is one label in Cilium: a rule for each first character; if any depth is meant, one with "
                    + "target \"\(target)\" says so"
            )
            names(SingleLabel.targets(below: parent), services, &reader)
        case .addresses: reader.report(member.value.position, path, "expected a name, found \"\(Excerpt.text(text))\"")
        default: names([target], services, &reader)
        }
    }

    private func names(_ targets: [Target], _ services: [Service], _ reader: inout ImportReader) {
        for service in services {
            for target in targets {
                // UDP to names is open only on ports that are listed.
                let ports = service.ports.isEmpty && service.transport != .tcp ? ImportReader.allPorts : service.ports
                reader.add(
                    Rule(
                        action,
                        target,
                        ports: ports,
                        transport: service.transport,
                        statesAnyTransport: service.transport == nil
                    )
                )
            }
        }
    }

    private func addresses(
        _ prefix: IPPrefix,
        _ services: [Service],
        _ position: DocumentNode.Position,
        _ path: String,
        _ reader: inout ImportReader
    ) {
        if action == .allow, let range = prefix.guardRange {
            let rules = services.map { Rule(.allow, .addresses(prefix), ports: $0.ports, transport: $0.transport) }
            return reader.note(
                .leftOut,
                position,
                path,
                "\(prefix) lies in the guard range \(range), and in Cilium does not count for the cluster's pods and nodes, "
                    + "which are not told apart here; if all of it is meant: "
                    + rules.prefix(3).map { PolicyDocument.yaml(of: $0) }.joined(separator: " ")
            )
        }
        for service in services {
            reader.add(Rule(action, .addresses(prefix), ports: service.ports, transport: service.transport))
        }
    }

    private func set(_ node: DocumentNode, _ services: [Service], _ path: String, _ reader: inout ImportReader) {
        let known = ["cidr", "except", "cidrGroupRef", "cidrGroupSelector"]
        guard let members = reader.members(of: node, path, known: known) else { return }
        guard let cidr = members["cidr"] else {
            guard let group = members["cidrGroupRef"] ?? members["cidrGroupSelector"] else {
                return reader.report(node.position, ImportReader.join(path, "cidr"), "missing: expected a CIDR")
            }
            if action == .deny {
                return reader.report(
                    group.position,
                    path,
                    "a group's CIDRs are not known here, and to leave a denial out could allow more"
                )
            }
            return reader.note(.leftOut, group.position, path, "a group's CIDRs are not known here")
        }
        let cidrPath = ImportReader.join(path, "cidr")
        guard let text = cidr.value.text else { return reader.expect("a CIDR", at: cidr.value, cidrPath) }
        guard let prefix = reader.prefix(text, cidr.value.position, cidrPath) else { return }
        var holes: [IPPrefix] = []
        if let except = members["except"] {
            for element in reader.strings(of: except.value, ImportReader.join(path, "except"), expected: "CIDRs") {
                guard let hole = reader.prefix(element.text, element.position, element.path) else { continue }
                guard prefix.contains(hole) else {
                    reader.report(element.position, element.path, "expected a part of \(prefix), found \(hole)")
                    continue
                }
                holes.append(hole)
            }
        }
        if action == .allow, prefix.guardRange != nil {
            return addresses(prefix, services, cidr.value.position, path, &reader)
        }
        // A part that lies in a guard range would open it, which the whole does not do.
        for part in prefix.subtracting(holes, limit: DocumentLimits.rules)
        where action == .deny || part.guardRange == nil {
            addresses(part, services, cidr.value.position, path, &reader)
            if reader.isOverfull { return }
        }
    }

    private func entity(_ node: DocumentNode, _ services: [Service], _ path: String, _ reader: inout ImportReader) {
        let all4 = IPPrefix(IPAddress(v4: 0), length: 0)
        let all6 = IPPrefix(IPAddress(v6: 0), length: 0)
        let text = node.text ?? ""
        let prefixes: [IPPrefix]
        switch text {
        case "world": prefixes = action == .deny ? [all4, all6] : [all4]
        case "world-ipv4": prefixes = [all4]
        case "world-ipv6": prefixes = [all6]
        case "all": prefixes = [all4, all6]
        case "host", "remote-node", "kube-apiserver", "ingress", "cluster", "init", "health", "unmanaged", "none":
            if action == .deny {
                return reader.report(
                    node.position,
                    path,
                    "\(text): not known here, and to leave a denial out could allow more"
                )
            }
            return reader.note(.leftOut, node.position, path, "\(text): a part of the cluster")
        default: return reader.expect("an entity such as world", at: node, path)
        }
        if action == .allow {
            reader.note(
                .narrowed,
                node.position,
                path,
                "\(text): by address, and no guard range; a name resolves only where a rule has the name, or with "
                    + "defaultAction: allow"
            )
        }
        for prefix in prefixes { addresses(prefix, services, node.position, path, &reader) }
    }
}

// MARK: - Ports

extension CiliumRuleReader {
    private func services(_ member: DocumentNode.Member, _ reader: inout ImportReader) -> [Service] {
        let path = ImportReader.join(path, "toPorts")
        var tcp: [PortRange] = []
        var udp: [PortRange] = []
        for (index, node) in reader.elements(of: member.value, path, expected: "port rules").enumerated() {
            let path = "\(path)[\(index)]"
            let known = ["ports", "rules", "terminatingTLS", "originatingTLS", "serverNames", "listener"]
            guard let rule = reader.members(of: node, path, known: known) else { continue }
            let limits = ["rules", "serverNames", "listener", "terminatingTLS", "originatingTLS"].compactMap {
                rule[$0]
            }
            .filter { !$0.value.isNull }
            // A denial has none of these; and to deny the whole port denies more, not less.
            if action == .allow, let limit = limits.first {
                reader.note(
                    .leftOut,
                    limit.position,
                    ImportReader.join(path, limit.key),
                    "what is said inside a connection is not judged here, and the whole port would be more than these rules allow"
                )
                continue
            }
            guard let ports = rule["ports"] else {
                reader.report(node.position, ImportReader.join(path, "ports"), "missing: expected a list of ports")
                continue
            }
            let portsPath = ImportReader.join(path, "ports")
            if case .sequence(let list) = ports.value.value, list.isEmpty {
                reader.report(ports.position, portsPath, "an empty list: expected a port")
            }
            for (index, node) in reader.elements(of: ports.value, portsPath, expected: "ports").enumerated() {
                port(node, "\(portsPath)[\(index)]", &tcp, &udp, &reader)
            }
        }
        (tcp, udp) = (PortRange.merged(tcp), PortRange.merged(udp))
        func service(_ ports: [PortRange], _ transport: TransportProtocol?) -> Service {
            Service(ports: ports == [.all] ? [] : ports, transport: transport)
        }
        if tcp == udp { return tcp.isEmpty ? [] : [service(tcp, nil)] }
        return (tcp.isEmpty ? [] : [service(tcp, .tcp)]) + (udp.isEmpty ? [] : [service(udp, .udp)])
    }

    private func port(
        _ node: DocumentNode,
        _ path: String,
        _ tcp: inout [PortRange],
        _ udp: inout [PortRange],
        _ reader: inout ImportReader
    ) {
        guard let members = reader.members(of: node, path, known: ["port", "endPort", "protocol"]) else { return }
        func number(_ key: String) -> (text: String, value: UInt16?)? {
            guard let member = members[key] else { return nil }
            switch member.value.value {
            case .number(let text), .plain(let text), .string(let text): return (text, UInt16(text))
            default: return ("", nil)
            }
        }
        let transport = (members["protocol"]?.value.text ?? "ANY").uppercased()
        guard ["TCP", "UDP", "ANY", "SCTP", ""].contains(transport) else {
            return reader.report(
                node.position,
                ImportReader.join(path, "protocol"),
                "expected TCP, UDP, SCTP or ANY, found \(Excerpt.text(transport))"
            )
        }
        if transport == "SCTP" {
            // No more is allowed by a denial left out: SCTP is never let through.
            return reader.note(.leftOut, node.position, path, "SCTP is not let through")
        }
        let range: PortRange
        switch number("port") {
        case nil, (_, 0)?:
            // To some versions every port.
            guard action == .deny else {
                return reader.report(node.position, ImportReader.join(path, "port"), "expected a port of 1...65535")
            }
            range = .all
        case (_, let lower?)?:
            let upper = number("endPort").map { $0.value ?? 0 } ?? lower
            guard let ports = PortRange(lower, upper == 0 ? lower : upper) else {
                return reader.report(
                    node.position,
                    ImportReader.join(path, "endPort"),
                    "expected a port of \(lower)...65535"
                )
            }
            range = ports
        case (let text, nil)?:
            let isNumber = text.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
            let path = ImportReader.join(path, "port")
            if isNumber || action == .deny {
                return reader.report(
                    node.position,
                    path,
                    "expected a port of 1...65535, found \"\(Excerpt.text(text))\""
                )
            }
            return reader.note(
                .leftOut,
                node.position,
                path,
                "\"\(text)\": what the cluster calls a port is not known here"
            )
        }
        if transport != "UDP" { tcp.append(range) }
        if transport != "TCP" { udp.append(range) }
    }
}
