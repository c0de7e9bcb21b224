public import EgressPolicy
public import NetPrimitives

/// A form in which policies are written for others.
public enum ExportFormat: String, Hashable, Sendable, CaseIterable {
    /// The `networkPolicy` of OpenSandbox's create request.
    case openSandbox = "opensandbox"
    /// A Kubernetes NetworkPolicy.
    case kubernetes

    /// What is written, in a few words.
    public var summary: String {
        switch self {
        case .openSandbox: "networkPolicy of OpenSandbox's create request, JSON: names and addresses, no ports"
        case .kubernetes: "a NetworkPolicy, YAML: addresses and ports, no names"
        }
    }

    /// Writes a policy as it is at `time`. What the form cannot say allows less there, and a note says so. More is allowed
    /// only where the other tool has no guard ranges, and where with `ignoresPorts` a rule that is limited to ports is
    /// written for all: a note says that, too.
    public func write(_ policy: Policy, at time: WallTime, ignoresPorts: Bool = false) -> PolicyExport {
        switch self {
        case .openSandbox: OpenSandboxExporter(policy: policy, time: time, ignoresPorts: ignoresPorts).write()
        case .kubernetes: KubernetesExporter(policy: policy, time: time).write()
        }
    }
}
