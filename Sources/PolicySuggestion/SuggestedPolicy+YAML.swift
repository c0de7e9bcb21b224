import EgressPolicy
import NetPrimitives
import PolicyDocument

extension SuggestedPolicy {
    /// The policy as a YAML document in which a comment says where each line comes from. `source` is what was read, and
    /// `baseName` what was built upon; both may hold any text.
    public func yaml(source: String, baseName: String? = nil) -> String {
        var output = header(source).map { "# \($0)" }
        output += ["networkPolicy:", "  defaultAction: \(base.defaultAction.rawValue)"]
        output.append(base.rules.isEmpty && lines.isEmpty ? "  egress: []" : "  egress:")
        if !base.rules.isEmpty {
            output.append("    # kept from \(CommentText.escaped(baseName ?? "the policy"))")
            output += base.rules.map { "    " + PolicyDocument.yaml(of: $0) }
            if !lines.isEmpty { output.append("    # added") }
        }
        for line in lines {
            output.append("    # \(line.facts)")
            output += line.review.map { "    # review: \($0)" }
            output.append("    " + PolicyDocument.yaml(of: line.rule))
        }
        output += footer
        return output.joined(separator: "\n") + "\n"
    }

    /// What is to be said before the policy.
    private func header(_ source: String) -> [String] {
        var text = "Suggested by sandgate from \(CommentText.escaped(source)): "
        text += "\(connectionCount.counted("connection")), \(queryCount.counted("name query", "name queries"))"
        if let span { text += ", \(span.lowerBound.second) to \(span.upperBound.second)" }
        var header = [text + "."]
        switch reviewCount {
        case 0: break
        case 1: header.append("One line is marked \"review:\": look at it before you keep it.")
        default: header.append("\(reviewCount) lines are marked \"review:\": look at them before you keep them.")
        }
        return header
    }

    /// How many lines deserve a person's eye.
    public var reviewCount: Int { lines.count { !$0.review.isEmpty } }

    /// What was left out, and what else could be done.
    private var footer: [String] {
        var output: [String] = []
        if !omissions.isEmpty {
            output.append("# Asked for, and not allowed by this policy:")
            for omission in omissions {
                let times = CommentText.times(omission.times)
                output.append("#   \(omission.destination) (\(times)): \(omission.reason)")
                if let rule = omission.rule { output.append("#     \(PolicyDocument.yaml(of: rule))") }
            }
        }
        if !hints.isEmpty { output += ["# Notes:"] + hints.map { "#   \(CommentText.escaped($0, limit: 400))" } }
        return output
    }
}

extension SuggestedPolicy.Line {
    /// How often it was asked for, by whom, and since when, in one line.
    var facts: String {
        var facts = CommentText.times(times)
        if !programs.isEmpty {
            facts += " by " + programs.map { CommentText.escaped($0, limit: 40) }.joined(separator: ", ")
        }
        if !sandboxes.isEmpty {
            let names = sandboxes.map { CommentText.escaped($0, limit: 64) }.joined(separator: ", ")
            facts += " in \(names)\(hasMoreSandboxes ? " and others" : "")"
        }
        facts += ", first \(firstSeen.second)"
        return ([facts] + remarks).joined(separator: "; ")
    }
}

extension WallTime {
    /// To the second, as in RFC 3339.
    var second: String { String(Timestamp.text(of: self).prefix(19)) + "Z" }
}
