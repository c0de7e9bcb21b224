public import EgressPolicy
import NetPrimitives

extension PolicyDocument {
    /// The policy as a YAML document under `networkPolicy`, which reads back as the same policy.
    public static func yaml(of policy: Policy) -> String {
        var lines = ["networkPolicy:", "  defaultAction: \(policy.defaultAction.rawValue)"]
        if policy.mode != .enforce { lines.append("  mode: \(policy.mode.rawValue)") }
        lines.append(policy.rules.isEmpty ? "  egress: []" : "  egress:")
        lines += policy.rules.map { "    " + yaml(of: $0) }
        if let setup = policy.setup {
            lines += ["  setup:", "    expiresAt: \(quote(InternetTime.text(of: setup.endsAt)))", "    egress:"]
            lines += setup.rules.map { "      " + yaml(of: $0) }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// A rule as one line of an `egress` list: `- {action: allow, target: "api.example.com", ports: [443]}`.
    public static func yaml(of rule: Rule) -> String {
        "- {" + fields(of: rule).map { "\($0): \($1.yaml)" }.joined(separator: ", ") + "}"
    }

    /// The policy as a JSON object on one line, keys in a fixed order.
    public static func json(of policy: Policy) -> String {
        let mode = policy.mode == .enforce ? "" : "\"mode\":\"\(policy.mode.rawValue)\","
        let setup = policy.setup.map { setup in
            ",\"setup\":{\"expiresAt\":\(quote(InternetTime.text(of: setup.endsAt))),\"egress\":\(json(of: setup.rules))}"
        }
        return "{\"defaultAction\":\"\(policy.defaultAction.rawValue)\",\(mode)\"egress\":\(json(of: policy.rules))"
            + "\(setup ?? "")}"
    }

    private static func json(of rules: [Rule]) -> String {
        "[" + rules.map(json(of:)).joined(separator: ",") + "]"
    }

    /// A rule as a JSON object.
    public static func json(of rule: Rule) -> String {
        "{" + fields(of: rule).map { "\"\($0)\":\($1.json)" }.joined(separator: ",") + "}"
    }

    /// A field's value.
    private enum FieldValue {
        /// One of our own words, which YAML takes without quotes.
        case word(String)
        /// Any text.
        case text(String)
        /// What is written alike in both syntaxes.
        case list(String)

        var yaml: String {
            switch self {
            case .word(let text), .list(let text): text
            case .text(let text): quote(text)
            }
        }

        var json: String {
            switch self {
            case .word(let text), .text(let text): quote(text)
            case .list(let text): text
            }
        }
    }

    private static func fields(of rule: Rule) -> [(String, FieldValue)] {
        var fields: [(String, FieldValue)] = [
            ("action", .word(rule.action.rawValue)), ("target", .text("\(rule.target)")),
        ]
        if !rule.ports.isEmpty {
            let ports = rule.ports.map { $0.lower == $0.upper ? "\($0)" : quote("\($0)") }
            fields.append(("ports", .list("[" + ports.joined(separator: ", ") + "]")))
        }
        if let transport = rule.transport {
            fields.append(("protocol", .word("\(transport)")))
        } else if rule.statesAnyTransport {
            fields.append(("protocol", .word("any")))
        }
        if let expiry = rule.expiresAt { fields.append(("expiresAt", .text(InternetTime.text(of: expiry)))) }
        if let comment = rule.comment { fields.append(("comment", .text(comment))) }
        return fields
    }

    /// A string in double quotes, with escapes that JSON and YAML read alike.
    static func quote(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": quoted += "\\\(scalar)"
            case "\n": quoted += "\\n"
            case "\t": quoted += "\\t"
            // What YAML reads as line breaks or not at all.
            case "\u{0}"..<" ", "\u{7f}"..."\u{9f}", "\u{2028}", "\u{2029}", "\u{feff}", "\u{fffe}", "\u{ffff}":
                let digits = String(scalar.value, radix: 16)
                quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}
