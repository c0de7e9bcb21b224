import EgressPolicy
import NetPrimitives
import PolicyDocument

/// One service of a smokescreen ACL.
///
/// Read from smokescreen's README, "ACLs", and source (stripe/smokescreen, pkg/smokescreen/acl/v1/acl.go and
/// yaml_loader.go):
///
/// * A service's `allowed_domains` go first, then `global_deny_list`, then `global_allow_list`, then its `action`: `enforce`
///   denies, `open` allows, `report` allows and warns.
/// * `*.example.com` is every name below it, at any depth, and not `example.com`; no other wildcard is accepted.
/// * It is a proxy for TCP, on any port. Private addresses are not reached, whatever the ACL says.
/// * A service that is not listed is judged by `default`; without one it is denied.
enum SmokescreenImporter {
    private static let keys = ["version", "services", "default", "global_deny_list", "global_allow_list"]
    private static let ruleKeys = [
        "name", "project", "action", "allowed_domains", "allowed_external_proxies", "mitm_domains",
    ]

    static func read(_ root: DocumentNode, _ reader: inout ImportReader, service: String?) {
        guard let acl = reader.members(of: root, "", known: keys) else { return }
        if let version = acl["version"] {
            if version.value.text != "v1" { reader.expect("v1", at: version.value, "version") }
        } else {
            reader.report(root.position, "version", "missing: expected v1")
        }
        guard let list = acl["services"], !list.value.isNull else {
            return reader.report(root.position, "services", "missing: expected a list of services")
        }
        var seen: Set<String> = []
        var services: [(name: String, path: String, node: DocumentNode, rule: [String: DocumentNode.Member])] = []
        for (index, node) in reader.elements(of: list.value, "services", expected: "services").enumerated() {
            let path = "services[\(index)]"
            guard let rule = reader.members(of: node, path, known: ruleKeys) else { continue }
            guard let name = rule["name"]?.value.text else {
                reader.report(node.position, ImportReader.join(path, "name"), "missing: expected the service's name")
                continue
            }
            if !seen.insert(name).inserted {
                reader.report(node.position, path, "the service \"\(name)\" is listed twice")
            }
            services.append((name, path, node, rule))
        }
        let fallback = acl["default"].flatMap { $0.value.isNull ? nil : $0 }
        let fallbackRule = fallback.flatMap { reader.members(of: $0.value, "default", known: ruleKeys) }
        // What is not imported must be well-formed all the same: the original refuses the file as a whole.
        var sketch = ImportReader(file: reader.file)
        for service in services {
            names(service.rule, service.path, &sketch)
            action(service.rule, service.path, service.node, &sketch)
        }
        if let fallback, let fallbackRule {
            names(fallbackRule, "default", &sketch)
            action(fallbackRule, "default", fallback.value, &sketch)
        }
        shared(acl, &sketch)
        reader.adopt(sketch.problems)
        guard reader.problems.isEmpty else { return }

        if let service {
            guard let found = services.first(where: { $0.name == service }) else {
                let names = services.map { Excerpt.text($0.name, limit: 60) }
                let expected = Spelling.expectation(of: names, for: service)
                return reader.report(list.position, "services", "no service \"\(service)\": expected \(expected)")
            }
            rules(of: found.rule, found.path, found.node, acl, &reader)
        } else if let fallback, let fallbackRule {
            for service in services {
                reader.note(
                    .leftOut,
                    service.node.position,
                    service.path,
                    "this is the default; for the service \"\(service.name)\": --service \(service.name)"
                )
            }
            rules(of: fallbackRule, "default", fallback.value, acl, &reader)
        } else if services.count == 1 {
            rules(of: services[0].rule, services[0].path, services[0].node, acl, &reader)
        } else if services.isEmpty {
            reader.report(list.position, "services", "none, and no default: expected a service")
        } else {
            let names = services.prefix(20).map { Excerpt.text($0.name, limit: 60) }.joined(separator: ", ")
            reader.report(
                list.position,
                "services",
                "\(services.count) services and no default: say --service, one of \(names)"
            )
        }
    }

    private static func rules(
        of rule: [String: DocumentNode.Member],
        _ path: String,
        _ node: DocumentNode,
        _ acl: [String: DocumentNode.Member],
        _ reader: inout ImportReader
    ) {
        names(rule, path, &reader)
        shared(acl, &reader)
        action(rule, path, node, &reader)
    }

    /// What a service may reach by itself.
    private static func names(_ rule: [String: DocumentNode.Member], _ path: String, _ reader: inout ImportReader) {
        if let member = rule["allowed_domains"] {
            globs(.allow, member, ImportReader.join(path, member.key), &reader)
        }
        let elsewhere = [
            "allowed_external_proxies": "connections go straight to the server",
            "mitm_domains": "TLS is not opened here: no headers are added, none are logged",
        ]
        for (key, message) in elsewhere.sorted(by: { $0.key < $1.key }) {
            guard let member = rule[key], !member.value.isNull else { continue }
            reader.note(.leftOut, member.position, ImportReader.join(path, key), message)
        }
    }

    /// What becomes of the rest.
    private static func action(
        _ rule: [String: DocumentNode.Member],
        _ path: String,
        _ node: DocumentNode,
        _ reader: inout ImportReader
    ) {
        let path = ImportReader.join(path, "action")
        guard let action = rule["action"] else {
            return reader.report(node.position, path, "missing: expected enforce, report or open")
        }
        switch action.value.text {
        case "enforce": break
        case "open": reader.defaultAction = .allow
        case "report":
            reader.defaultAction = .allow
            reader.note(
                .narrowed,
                action.position,
                path,
                "the rest passes as smokescreen lets it pass, without a warning: to be told what is not listed, use "
                    + "defaultAction: deny and mode: report, which lets pass what is denied too"
            )
        default: reader.expect("enforce, report or open", at: action.value, path)
        }
    }

    /// The lists that hold for every service.
    private static func shared(_ acl: [String: DocumentNode.Member], _ reader: inout ImportReader) {
        if let member = acl["global_deny_list"] { globs(.deny, member, member.key, &reader) }
        if let member = acl["global_allow_list"] { globs(.allow, member, member.key, &reader) }
    }

    private static func globs(
        _ action: RuleAction,
        _ member: DocumentNode.Member,
        _ path: String,
        _ reader: inout ImportReader
    ) {
        for element in reader.strings(of: member.value, path, expected: "names") {
            guard let target = reader.host(element.text, element.position, element.path) else { continue }
            if case .addresses(let prefix) = target, action == .allow, prefix.guardRange != nil {
                reader.note(
                    .leftOut,
                    element.position,
                    element.path,
                    "smokescreen keeps private addresses closed, whatever the ACL says; if it is meant: "
                        + PolicyDocument.yaml(of: Rule(.allow, target, transport: .tcp))
                )
                continue
            }
            reader.add(Rule(action, target, transport: action == .allow ? .tcp : nil))
        }
    }
}
