import EgressPolicy
import NetPrimitives
import PolicyDocument

/// Settings of Anthropic's sandbox-runtime (`~/.srt-settings.json`), or the `sandbox` of Claude Code's settings; only
/// `network` is read.
///
/// Read from its README, "Network Configuration", and source (anthropic-experimental/sandbox-runtime,
/// src/sandbox/sandbox-config.ts, test/sandbox/domain-pattern.test.ts):
///
/// * `deniedDomains` goes before `allowedDomains`; what neither lists is denied (where a person could be asked, too: here
///   nobody is).
/// * An entry is a name, `*.name` (every name below it at any depth, not the name itself), an IPv4 or bracketed IPv6
///   address, with `:port` or without, for TCP. `*` and `*:port` are accepted in `deniedDomains` only.
/// * `deniedResolvedAddresses`: an allowed name must not lead to one of these, unless the address itself is allowed.
enum SandboxRuntimeImporter {
    private static let listed = ["allowedDomains", "deniedDomains", "deniedDomainReasons", "deniedResolvedAddresses"]
    /// What has no part in what may be reached.
    private static let silent = [
        "strictAllowlist", "allowManagedDomainsOnly", "allowUnixSockets", "allowAllUnixSockets", "allowLocalBinding",
        "allowMachLookup", "httpProxyPort", "socksProxyPort",
    ]
    /// What has, or how it goes there, and no equal.
    private static let noted = [
        "allowAllDomains": "every name, and no address: list the names, or use defaultAction: allow",
        "mitmProxy": "TLS is not opened here, and goes straight to the server",
        "parentProxy": "connections go straight to the server",
        "tlsTerminate": "TLS is not opened here",
    ]

    static func read(_ root: DocumentNode, _ reader: inout ImportReader) {
        guard var members = reader.members(of: root, "") else { return }
        var path = "network"
        if members["network"] == nil, let sandbox = members["sandbox"] {
            guard let inner = reader.members(of: sandbox.value, "sandbox") else { return }
            members = inner
            path = "sandbox.network"
        }
        guard let network = members["network"], !network.value.isNull else {
            return reader.report(root.position, path, "missing: expected a mapping with allowedDomains")
        }
        let known = listed + silent + noted.keys.sorted()
        guard let options = reader.members(of: network.value, path, known: known) else { return }
        for (key, message) in noted.sorted(by: { $0.key < $1.key }) {
            guard let member = options[key], !member.value.isNull else { continue }
            if key == "allowAllDomains", reader.bool(member.value, ImportReader.join(path, key)) == false { continue }
            reader.note(.leftOut, member.position, ImportReader.join(path, key), message)
        }
        let denied = deny(options, path, &reader)
        allow(options, path, denied, &reader)
    }

    /// Writes the denials, and returns the ports on which everything is denied.
    private static func deny(
        _ options: [String: DocumentNode.Member],
        _ path: String,
        _ reader: inout ImportReader
    ) -> [PortRange] {
        guard let member = options["deniedDomains"] else { return [] }
        let reasons = reasons(options, path, &reader)
        var everywhere: [PortRange] = []
        for element in reader.strings(of: member.value, ImportReader.join(path, "deniedDomains"), expected: "names") {
            guard let (host, port) = reader.endpoint(element) else { continue }
            if host == "*" {
                reader.remark(
                    "\(element.path) is \(element.text): "
                        + (port.map { "no rule below allows port \($0)" } ?? "no rule below allows anything")
                )
                everywhere.append(port ?? .all)
                continue
            }
            guard let target = pattern(host, element, &reader) else { continue }
            let comment = reasons[element.text].map { Excerpt.text($0) }
            reader.add(Rule(.deny, target, ports: port.map { [$0] } ?? [], comment: comment))
        }
        return everywhere
    }

    private static func reasons(
        _ options: [String: DocumentNode.Member],
        _ path: String,
        _ reader: inout ImportReader
    ) -> [String: String] {
        let path = ImportReader.join(path, "deniedDomainReasons")
        guard let member = options["deniedDomainReasons"], !member.value.isNull,
            let reasons = reader.members(of: member.value, path)
        else { return [:] }
        for (key, reason) in reasons where reason.value.text == nil {
            reader.expect("a string", at: reason.value, ImportReader.join(path, key))
        }
        return reasons.compactMapValues { $0.value.text }
    }

    private static func allow(
        _ options: [String: DocumentNode.Member],
        _ path: String,
        _ denied: [PortRange],
        _ reader: inout ImportReader
    ) {
        guard let member = options["allowedDomains"] else {
            return reader.report(
                options.values.map(\.position).min { ($0.line, $0.column) < ($1.line, $1.column) } ?? .init(),
                ImportReader.join(path, "allowedDomains"),
                "missing: an empty list denies everything"
            )
        }
        let left = denied.isEmpty ? nil : PortRange.complement(denied)
        // An address that is listed may be reached by a name too, so it stands before the addresses that may not.
        var rest = ImportReader(file: reader.file)
        for element in reader.strings(of: member.value, ImportReader.join(path, "allowedDomains"), expected: "names") {
            guard let (host, port) = reader.endpoint(element), let target = pattern(host, element, &reader) else {
                continue
            }
            guard !isLoopback(target) else {
                rest.note(
                    .leftOut,
                    element.position,
                    element.path,
                    "there it is the machine's own loopback; here the sandbox has one of its own, which is always open to it"
                )
                continue
            }
            guard let ports = ports(port, of: left) else { continue }
            let rule = Rule(.allow, target, ports: ports, transport: .tcp)
            if case .addresses = target { reader.add(rule) } else { rest.add(rule) }
        }
        if let member = options["deniedResolvedAddresses"] {
            let path = ImportReader.join(path, "deniedResolvedAddresses")
            for element in reader.strings(of: member.value, path, expected: "addresses and CIDRs") {
                guard let prefix = reader.prefix(element.text, element.position, element.path) else { continue }
                reader.add(Rule(.deny, .addresses(prefix)))
            }
        }
        reader.append(rest)
    }

    /// The ports of an entry that are left, where not all are; `nil` when none is.
    private static func ports(_ port: PortRange?, of left: [PortRange]?) -> [PortRange]? {
        guard let left else { return port.map { [$0] } ?? [] }
        guard let port else { return left.isEmpty ? nil : left }
        return left.contains { $0.contains(port.lower) } ? [port] : nil
    }

    private static func pattern(
        _ host: String,
        _ element: ImportReader.Element,
        _ reader: inout ImportReader
    ) -> Target? {
        guard let target = reader.host(host, element.position, element.path) else { return nil }
        let isShort =
            switch target {
            case .name(let name): name.parent == nil && host != "localhost"
            case .subdomains(let parent): parent.parent == nil
            default: false
            }
        if isShort {
            reader.report(
                element.position,
                element.path,
                "expected a name of at least two labels, or a wildcard such as *.example.com, found \"\(host)\""
            )
            return nil
        }
        return target
    }

    private static func isLoopback(_ target: Target) -> Bool {
        switch target {
        case .name(let name): name.description == "localhost" || name.description.hasSuffix(".localhost")
        case .addresses(let prefix): prefix.address.isLoopback
        default: false
        }
    }
}
