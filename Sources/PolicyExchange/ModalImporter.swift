import EgressPolicy
import NetPrimitives
import PolicyDocument

/// The network options of `modal.Sandbox.create`, in the spelling of the Python or the JavaScript SDK, as JSON or YAML.
///
/// Read from Modal's guide, "Networking and security" (modal.com/docs/guide/sandbox-networking), and the reference of its
/// JavaScript SDK (SandboxCreateParams):
///
/// * `block_network` drops everything, and stands alone.
/// * `outbound_cidr_allowlist` (formerly `cidr_allowlist`): only these ranges, any protocol.
/// * `outbound_domain_allowlist`: TLS on port 443 to these names, in addition to the ranges; wildcard prefixes as in
///   `*.example.com`. How many labels one stands for is not written: it is taken for one.
/// * With neither list every address is reached; a list, an empty one too, allows only what it has.
enum ModalImporter {
    private static let blockKeys = ["block_network", "blockNetwork"]
    private static let cidrKeys = [
        "outbound_cidr_allowlist", "outboundCidrAllowlist", "cidr_allowlist", "cidrAllowlist",
    ]
    private static let domainKeys = ["outbound_domain_allowlist", "outboundDomainAllowlist"]
    private static let inboundKeys = ["inbound_cidr_allowlist", "inboundCidrAllowlist"]

    static func read(_ root: DocumentNode, _ reader: inout ImportReader) {
        // Other parameters of a sandbox stand beside these, and are no business of a policy; a name that looks like one of
        // these and is not must not be taken for that.
        guard let options = reader.members(of: root, "") else { return }
        let known = blockKeys + cidrKeys + domainKeys + inboundKeys
        for (key, member) in options.sorted(by: { $0.key < $1.key }) where !known.contains(key) {
            let folded = key.lowercased()
            if folded.contains("allow") || folded.contains("block") || folded.contains("outbound") {
                reader.report(
                    member.position,
                    key,
                    "unknown key: expected \(Spelling.expectation(of: known, for: key))"
                )
            }
        }
        guard known.contains(where: { options[$0] != nil }) else {
            return reader.report(
                root.position,
                "",
                "no network options: expected one of \(known.joined(separator: ", "))"
            )
        }
        let block = member(blockKeys, options, &reader)
        let blocks = block.map { reader.bool($0.value, $0.key) ?? true } ?? false
        let cidrs = member(cidrKeys, options, &reader)
        let domains = member(domainKeys, options, &reader)
        let inbound = member(inboundKeys, options, &reader)
        if blocks {
            for list in [cidrs, domains, inbound] {
                guard let list else { continue }
                reader.report(
                    list.position,
                    list.key,
                    "stands beside block_network, with which Modal does not accept it"
                )
            }
            return
        }
        if let inbound {
            reader.note(.leftOut, inbound.position, inbound.key, "it is about connections to the sandbox")
        }
        guard cidrs != nil || domains != nil else {
            reader.remark("Without a list Modal lets everything pass: TCP by defaultAction, UDP by the rules below.")
            reader.defaultAction = .allow
            reader.add(Rule(.allow, .addresses(IPPrefix(IPAddress(v4: 0), length: 0)), transport: .udp))
            reader.add(Rule(.allow, .addresses(IPPrefix(IPAddress(v6: 0), length: 0)), transport: .udp))
            return
        }
        if let cidrs {
            for element in reader.strings(of: cidrs.value, cidrs.key, expected: "CIDRs") {
                guard let prefix = reader.prefix(element.text, element.position, element.path) else { continue }
                reader.add(Rule(.allow, .addresses(prefix)))
            }
        }
        if let domains {
            for element in reader.strings(of: domains.value, domains.key, expected: "names") { allow(element, &reader) }
        }
    }

    /// The one of several spellings that is there and not `null`.
    private static func member(
        _ keys: [String],
        _ options: [String: DocumentNode.Member],
        _ reader: inout ImportReader
    ) -> DocumentNode.Member? {
        let stated = keys.compactMap { options[$0] }.filter { !$0.value.isNull }
        if stated.count > 1 {
            reader.report(stated[1].position, stated[1].key, "the same option as \(stated[0].key)")
        }
        return stated.first
    }

    private static func allow(_ element: ImportReader.Element, _ reader: inout ImportReader) {
        guard element.text != "*" else {
            return reader.note(
                .leftOut,
                element.position,
                element.path,
                "every name, and no connection without one: list the names, or use defaultAction: allow"
            )
        }
        guard let target = reader.host(element.text, element.position, element.path) else { return }
        let ports = [PortRange(443)!]
        switch target {
        case .subdomains(let parent):
            reader.remark(
                "\"\(target)\": Modal does not say how many labels * stands for, so it is one here, a rule for each "
                    + "first character; if any depth is meant: "
                    + PolicyDocument.yaml(of: Rule(.allow, target, ports: ports, transport: .tcp))
            )
            for label in SingleLabel.targets(below: parent) {
                reader.add(Rule(.allow, label, ports: ports, transport: .tcp))
            }
        case .name: reader.add(Rule(.allow, target, ports: ports, transport: .tcp))
        default: reader.report(element.position, element.path, "expected a name, found \"\(element.text)\"")
        }
    }
}
