import EgressPolicy
import NetPrimitives
import PolicyExchange

@testable import PolicyDocument

extension FuzzTarget {
    /// 2026-11-23T00:41:07Z.
    private static let now = WallTime(microseconds: 1_795_394_467_000_000)

    /// A policy in JSON.
    static let policyJSON = FuzzTarget(name: "policy-json") { bytes in checkPolicy(bytes, .json) }

    /// A policy in YAML.
    static let policyYAML = FuzzTarget(name: "policy-yaml") { bytes in checkPolicy(bytes, .yaml) }

    /// What is read of a policy is what is read of the policy written anew, in both syntaxes.
    private static func checkPolicy(_ bytes: [UInt8], _ format: PolicyDocument.Format) {
        _ = try? PolicyDocument.loadTargets(bytes: bytes, format: format, file: "f")
        _ = try? PolicyDocument.loadRules(bytes: bytes, format: format, file: "f", now: now)
        let policy: Policy
        do throws(DocumentError) {
            policy = try PolicyDocument.load(bytes: bytes, format: format, file: "f", now: now).policy
        } catch {
            require(!error.problems.isEmpty, "refused without a problem")
            let lines = bytes.count { $0 == 10 || $0 == 13 } + bytes.count / 2 + 1
            for problem in error.problems {
                require((1...lines).contains(problem.line) && problem.column >= 1, "a problem at no place: \(problem)")
            }
            return
        }
        reread(policy, Array(PolicyDocument.yaml(of: policy).utf8), .yaml)
        reread(policy, Array(PolicyDocument.json(of: policy).utf8), .json)
        _ = CompiledPolicy(policy)
    }

    private static func reread(_ policy: Policy, _ bytes: [UInt8], _ format: PolicyDocument.Format) {
        do throws(DocumentError) {
            let again = try PolicyDocument.load(bytes: bytes, format: format, file: "again", now: now).policy
            require(again == policy, "\(policy) is written as \(String(decoding: bytes, as: UTF8.self))")
        } catch {
            fatalError("\(error): \(String(decoding: bytes, as: UTF8.self))")
        }
    }

    /// Another tool's document; the first byte chooses the tool. What comes of it is a valid policy in printable text, and
    /// what is written of that for others allows no more.
    static let policyImport = FuzzTarget(name: "policy-import") { bytes in
        guard let first = bytes.first else { return }
        let formats = ImportFormat.allCases
        let format = formats[Int(first) % formats.count]
        let imported: PolicyImport
        do throws(DocumentError) {
            imported = try format.load(bytes: Array(bytes.dropFirst()), file: "f")
        } catch {
            require(!error.problems.isEmpty, "refused without a problem")
            return
        }
        let yaml = Array(imported.yaml.utf8)
        require(yaml.allSatisfy { $0 == 10 || (0x20..<0x7f).contains($0) }, "what is printed is not printable")
        reread(imported.policy, yaml, .yaml)
        let policy = imported.policy
        for form in ExportFormat.allCases { _ = form.write(policy, at: now) }
        let document = Array(ExportFormat.openSandbox.write(policy, at: now).document.utf8)
        do throws(DocumentError) {
            let exported = try PolicyDocument.load(bytes: document, format: .json, file: "o", now: now).policy
            guard policy.rules.count < 64 else { return }
            let difference = PolicyDifference(from: CompiledPolicy(policy), to: CompiledPolicy(exported), at: now)
            require(difference.opened.isEmpty, "\(difference.opened) is opened by an export")
        } catch {
            fatalError("\(error)")
        }
    }

    /// A create request, and the other bodies that the API reads.
    static let createRequest = FuzzTarget(name: "create-request") { bytes in
        _ = try? CreateRequest.loadExpiry(bytes: bytes, file: "f", now: now)
        let policy = try? CreateRequest.loadPolicy(bytes: bytes, file: "f", now: now)
        guard let request = try? CreateRequest.load(bytes: bytes, file: "f", now: now) else { return }
        require(request.policy == nil || request.policy == policy, "two readers see two policies")
        require(request.id.map(CreateRequest.isValidID) ?? true, "an id that is none")
        require(request.expiresAt.map { $0 > now } ?? true, "over before it began")
        let servers = request.upstreamInside?.nameservers ?? []
        require(!servers.contains(where: \.address.isLoopback), "a nameserver of the sandbox's own")
        if let inbound = request.inbound { require(PortRange.merged(inbound) == inbound, "ports out of order") }
    }
}
