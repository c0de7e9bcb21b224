public import PolicyDocument

/// A tool whose documents are read.
public enum ImportFormat: String, Hashable, Sendable, CaseIterable {
    /// E2B's network options.
    case e2b
    /// The network options of Modal's sandboxes.
    case modal
    /// Anthropic's sandbox-runtime (srt).
    case sandboxRuntime = "sandbox-runtime"
    /// Stripe's smokescreen.
    case smokescreen
    /// Cilium's CiliumNetworkPolicy.
    case cilium
    /// Docker's sandboxes.
    case docker
    /// step-security/harden-runner.
    case hardenRunner = "harden-runner"

    /// What is read, in a few words.
    public var summary: String {
        switch self {
        case .e2b: "E2B network options, JSON or YAML: allowOut, denyOut"
        case .modal:
            "Modal sandbox options, JSON or YAML: block_network, outbound_cidr_allowlist, outbound_domain_allowlist"
        case .sandboxRuntime: "Anthropic sandbox-runtime settings: network.allowedDomains, deniedDomains"
        case .smokescreen: "smokescreen ACL, version v1"
        case .cilium: "a CiliumNetworkPolicy: toFQDNs, toCIDR, toCIDRSet, toPorts, egressDeny"
        case .docker: "docker sandbox network proxy: its command line, or proxy-config.json"
        case .hardenRunner: "harden-runner allowed-endpoints: a workflow, or the list as text"
        }
    }

    /// Which part of a document that holds several policies is meant.
    public struct Selection: Hashable, Sendable {
        /// The service of a smokescreen ACL; `nil` for its default.
        public var service: String?
        /// The job of a workflow; `nil` where only one has a list.
        public var job: String?

        /// A selection from its parts.
        public init(service: String? = nil, job: String? = nil) {
            self.service = service
            self.job = job
        }
    }

    /// Reads a document. Nothing is taken over in part: the error holds all problems. `file` is for messages.
    ///
    /// Bounded as policies are: 4 MiB, 32 levels, no YAML aliases, 100,000 rules.
    public func load(
        bytes: [UInt8],
        file: String,
        selection: Selection = Selection()
    ) throws(DocumentError) -> PolicyImport {
        var reader = ImportReader(file: file)
        switch self {
        case .e2b: E2BImporter.read(try reader.tree(bytes), &reader)
        case .modal: ModalImporter.read(try reader.tree(bytes), &reader)
        case .sandboxRuntime: SandboxRuntimeImporter.read(try reader.tree(bytes), &reader)
        case .smokescreen: SmokescreenImporter.read(try reader.tree(bytes), &reader, service: selection.service)
        case .cilium: CiliumImporter.read(try reader.tree(bytes), &reader)
        case .docker: try DockerImporter.read(bytes, &reader)
        case .hardenRunner: try HardenRunnerImporter.read(bytes, &reader, job: selection.job)
        }
        return try reader.finish(source: "From \(Excerpt.text(file)), format \(rawValue), by sandgate policy import.")
    }
}
