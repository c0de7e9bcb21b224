import EgressPolicy
import NetPrimitives
import PolicyDocument

/// E2B's network options: the `network` of a create request (or the whole request), in the spelling of the JavaScript or
/// the Python SDK, as JSON or YAML.
///
/// Read from E2B's documentation, "Internet access" (e2b.dev/docs/network/internet-access), and its firewall
/// (e2b-dev/infra, packages/orchestrator/internal/tcpfirewall/handlers.go):
///
/// * What `allowOut` lists passes, whatever `denyOut` says; what `denyOut` lists does not; all else passes.
///   `allowInternetAccess: false` is `denyOut: ["0.0.0.0/0"]`.
/// * `allowOut` takes addresses, CIDRs and names; `denyOut` only addresses and CIDRs.
/// * Names count on port 80 (Host) and 443 (SNI) over TCP. `*.example.com` is every name below it, at any depth, and not
///   `example.com`.
/// * 0.0.0.0/0 stands for all destinations. Private addresses are never reached.
enum E2BImporter {
    private static let keys = [
        "allowOut", "allow_out", "denyOut", "deny_out", "allowPublicTraffic", "allow_public_traffic", "maskRequestHost",
        "mask_request_host",
    ]
    private static let switches = ["allowInternetAccess", "allow_internet_access"]
    private static let everything = IPPrefix(IPAddress(v4: 0), length: 0)
    private static let everything6 = IPPrefix(IPAddress(v6: 0), length: 0)

    static func read(_ root: DocumentNode, _ reader: inout ImportReader) {
        guard let request = reader.members(of: root, "") else { return }
        let isRequest = request["network"] != nil || switches.contains { request[$0] != nil }
        var deniesAll = false
        for key in switches {
            guard let member = request[key], !member.value.isNull else { continue }
            if reader.bool(member.value, key) == false { deniesAll = true }
        }
        var network = root
        var path = ""
        if isRequest {
            path = "network"
            network = request["network"]?.value ?? DocumentNode(value: .null, position: root.position)
        }
        var options: [String: DocumentNode.Member] = [:]
        if !network.isNull {
            guard let members = reader.members(of: network, path, known: keys + (isRequest ? [] : switches)) else {
                return
            }
            if !isRequest, members.isEmpty {
                return reader.report(
                    root.position,
                    "",
                    "no network options: expected allowOut, denyOut or a create request"
                )
            }
            options = members
        }
        for (camel, snake) in [("allowOut", "allow_out"), ("denyOut", "deny_out")] {
            if let member = options[snake], options[camel] != nil {
                reader.report(
                    member.position,
                    ImportReader.join(path, snake),
                    "\(camel) and \(snake) are the same option"
                )
            }
        }
        for key in ["allowOut", "allow_out"] {
            guard let member = options[key] else { continue }
            for element in reader.strings(of: member.value, ImportReader.join(path, key), expected: "names and CIDRs") {
                allow(element, &reader)
            }
        }
        for key in ["denyOut", "deny_out"] {
            guard let member = options[key] else { continue }
            for element in reader.strings(
                of: member.value,
                ImportReader.join(path, key),
                expected: "addresses and CIDRs"
            ) {
                guard let prefix = reader.prefix(element.text, element.position, element.path) else { continue }
                if prefix == everything { deniesAll = true } else { reader.add(Rule(.deny, .addresses(prefix))) }
            }
        }
        for key in keys.dropFirst(4) {
            guard let member = options[key], !member.value.isNull else { continue }
            let what =
                key.hasPrefix("allow") ? "it is about connections to the sandbox" : "requests are not changed here"
            reader.note(.leftOut, member.position, ImportReader.join(path, key), what)
        }
        if !deniesAll { allowTheRest(&reader) }
    }

    private static func allow(_ element: ImportReader.Element, _ reader: inout ImportReader) {
        if element.text == "*" {
            return reader.note(
                .leftOut,
                element.position,
                element.path,
                "every name on ports 80 and 443, and no connection without a name: list the names, or use defaultAction: allow"
            )
        }
        let isAddress = element.text.utf8.contains(UInt8(ascii: "/")) || IPAddress(element.text) != nil
        guard isAddress else {
            guard let target = reader.host(element.text, element.position, element.path) else { return }
            reader.add(Rule(.allow, target, ports: [PortRange(80)!, PortRange(443)!], transport: .tcp))
            return
        }
        guard let prefix = reader.prefix(element.text, element.position, element.path) else { return }
        guard prefix.guardRange == nil else {
            return reader.note(
                .leftOut,
                element.position,
                element.path,
                "E2B keeps private addresses closed; if \(prefix) is meant: "
                    + PolicyDocument.yaml(of: Rule(.allow, .addresses(prefix)))
            )
        }
        reader.add(Rule(.allow, .addresses(prefix)))
    }

    /// Everything over IPv4: what nothing above denies passes.
    private static func allowTheRest(_ reader: inout ImportReader) {
        reader.remark(
            "What E2B neither allows nor denies passes: TCP by defaultAction, UDP by the rule below, and no IPv6."
        )
        reader.defaultAction = .allow
        reader.add(Rule(.allow, .addresses(everything), transport: .udp))
        reader.add(Rule(.deny, .addresses(everything6)))
    }
}
