import EgressPolicy
import NetPrimitives
import PolicyDocument

/// The `allowed-endpoints` of step-security/harden-runner: from a workflow or an action, or the list as text.
///
/// Read from its action.yml, StepSecurity's page "Filter outbound network traffic to allowed endpoints"
/// (docs.stepsecurity.io/harden-runner), and the agent's source (step-security/agent, config.go and dnsproxy.go):
///
/// * Endpoints are split at white space: `host:port`, port 443 without one, over TCP. The host is looked up as a name.
/// * `*.example.com:443` is every name below it, and not `example.com`.
/// * Only with `egress-policy: block` is anything denied; with `audit` everything passes and is recorded.
enum HardenRunnerImporter {
    private static let action = "step-security/harden-runner"

    private struct Step {
        let job: String
        let path: String
        let position: DocumentNode.Position
        var endpoints: DocumentNode?
        var policy: DocumentNode?
        var store: DocumentNode.Member?
    }

    static func read(_ bytes: [UInt8], _ reader: inout ImportReader, job: String?) throws(DocumentError) {
        guard isWorkflow(bytes, reader.file) else { return read(text: bytes, &reader, job: job) }
        let root = try reader.tree(bytes)
        let steps = steps(of: root, &reader)
        guard reader.problems.isEmpty else { return }
        let chosen = job.map { job in steps.filter { $0.job == job } } ?? steps
        let names = Array(Set(steps.map(\.job))).sorted().map { Excerpt.text($0, limit: 60) }.joined(separator: ", ")
        guard let step = chosen.first else {
            let place = job.map { "in the job \"\($0)\"" } ?? "here"
            let others = steps.isEmpty ? "" : "; expected --job, one of \(names)"
            return reader.report(root.position, "jobs", "no step uses \(action) \(place)\(others)")
        }
        guard chosen.count == 1 || chosen.allSatisfy({ $0.endpoints?.text == step.endpoints?.text }) else {
            return reader.report(
                chosen[1].position,
                chosen[1].path,
                "another list than in \(step.path): say --job, one of \(names)"
            )
        }
        write(step, &reader)
    }

    private static func write(_ step: Step, _ reader: inout ImportReader) {
        let path = ImportReader.join(step.path, "with")
        if let store = step.store {
            reader.note(
                .leftOut,
                store.position,
                ImportReader.join(path, store.key),
                "what StepSecurity's store allows is not written here"
            )
        }
        switch step.policy?.text {
        case nil, "block": break
        case "audit":
            reader.note(
                .narrowed,
                step.policy!.position,
                ImportReader.join(path, "egress-policy"),
                "audit lets everything pass; here the list is enforced. To let pass and record: mode: report"
            )
        default: reader.expect("block or audit", at: step.policy!, ImportReader.join(path, "egress-policy"))
        }
        guard let node = step.endpoints, !node.isNull else { return }
        let endpointsPath = ImportReader.join(path, "allowed-endpoints")
        guard let text = node.text else { return reader.expect("a string", at: node, endpointsPath) }
        if text.contains("${{") {
            return reader.report(
                node.position,
                endpointsPath,
                "an expression cannot be evaluated here: write the endpoints out"
            )
        }
        for (index, token) in text.split(whereSeparator: \.isWhitespace).enumerated() {
            write(
                ImportReader.Element(text: String(token), position: node.position, path: "\(endpointsPath)[\(index)]"),
                &reader
            )
            if reader.isOverfull { return }
        }
    }

    private static func write(_ element: ImportReader.Element, _ reader: inout ImportReader) {
        guard let (host, port) = reader.endpoint(element) else { return }
        guard let target = reader.host(host, element.position, element.path) else { return }
        let rule = Rule(.allow, target, ports: [port ?? PortRange(443)!], transport: .tcp)
        if case .addresses = target {
            return reader.note(
                .leftOut,
                element.position,
                element.path,
                "the agent looks endpoints up as names; if the address is meant: \(PolicyDocument.yaml(of: rule))"
            )
        }
        reader.add(rule)
    }
}

// MARK: - Text

extension HardenRunnerImporter {
    private static func read(text bytes: [UInt8], _ reader: inout ImportReader, job: String?) {
        guard bytes.count <= 1 << 20, let text = String(validating: bytes, as: UTF8.self) else {
            return reader.report(.init(), "", "expected at most 1 MiB of UTF-8")
        }
        if let job { return reader.report(.init(), "", "--job \(job): a list as text has no jobs") }
        var index = 0
        for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            for token in line.split(whereSeparator: \.isWhitespace) {
                let column = line.unicodeScalars.distance(from: line.startIndex, to: token.startIndex) + 1
                let position = DocumentNode.Position(line: number + 1, column: column)
                write(ImportReader.Element(text: String(token), position: position, path: "[\(index)]"), &reader)
                index += 1
            }
        }
        if index == 0 { reader.report(.init(), "", "no endpoints: expected host:port, or a workflow") }
    }

    /// Whether it is YAML rather than a list of endpoints: it has a key, which no endpoint looks like.
    private static func isWorkflow(_ bytes: [UInt8], _ file: String) -> Bool {
        if file.hasSuffix(".yml") || file.hasSuffix(".yaml") || file.hasSuffix(".json") { return true }
        let lines = String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline)
        return lines.contains { line in
            let content = line.drop { " -".contains($0) }
            return content.hasPrefix("{")
                || ["jobs:", "steps:", "runs:", "uses:", "with:", "allowed-endpoints:"].contains {
                    content.hasPrefix($0)
                }
        }
    }
}

// MARK: - Workflows

extension HardenRunnerImporter {
    private static func steps(of root: DocumentNode, _ reader: inout ImportReader) -> [Step] {
        guard let document = reader.members(of: root, "") else { return [] }
        var steps: [Step] = []
        if let jobs = document["jobs"] {
            guard case .mapping(let members) = jobs.value.value else {
                reader.expect("a mapping of jobs", at: jobs.value, "jobs")
                return []
            }
            for member in members {
                guard case .mapping = member.value.value else { continue }
                let path = "jobs.\(member.key)"
                if let list = reader.members(of: member.value, path)?["steps"] {
                    steps += self.steps(list.value, "\(path).steps", member.key, &reader)
                }
            }
        } else if let runs = document["runs"], let list = reader.members(of: runs.value, "runs")?["steps"] {
            steps = self.steps(list.value, "runs.steps", "runs", &reader)
        } else if let list = document["steps"] {
            steps = self.steps(list.value, "steps", "steps", &reader)
        } else {
            reader.report(
                root.position,
                "",
                "expected a workflow with jobs, an action with runs, or a list of endpoints"
            )
        }
        return steps
    }

    private static func steps(
        _ node: DocumentNode,
        _ path: String,
        _ job: String,
        _ reader: inout ImportReader
    ) -> [Step] {
        reader.elements(of: node, path, expected: "steps").enumerated().compactMap { index, element in
            let path = "\(path)[\(index)]"
            guard let members = reader.members(of: element, path), let uses = members["uses"]?.value.text,
                uses.split(separator: "@").first.map({ $0.lowercased() == action }) ?? false
            else { return nil }
            var step = Step(job: job, path: path, position: element.position)
            guard let with = members["with"], !with.value.isNull,
                let inputs = reader.members(of: with.value, ImportReader.join(path, "with"))
            else { return step }
            step.endpoints = inputs["allowed-endpoints"]?.value
            step.policy = inputs["egress-policy"]?.value
            for key in ["policy", "use-policy-store"] {
                guard let member = inputs[key], let text = member.value.text, !["", "false"].contains(text) else {
                    continue
                }
                step.store = member
            }
            return step
        }
    }
}
