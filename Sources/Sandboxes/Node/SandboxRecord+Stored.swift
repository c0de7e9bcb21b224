import EgressPolicy
import FoundationEssentials
import NetPrimitives
import PolicyDocument

/// The form of a record on disk: a create request, with what has become of it under `status`.
extension SandboxRecord: Encodable {
    private enum Key: CodingKey { case id, networkPolicy, expiresAt, metadata, attachment, status }
    private enum AttachmentKey: CodingKey {
        case create, netns, pid, container, inbound, acceptRawSockets, acceptSidePaths
        case upstreamInside, nameservers, dockerNames, dockerDomains, ask
    }
    private enum StatusKey: CodingKey {
        case state, reason, message, lastTransitionAt, createdAt, revision, lockedAt, namespace, inode, bootID
    }

    /// Members that have no value are absent.
    public func encode(to encoder: any Encoder) throws {
        var root = encoder.container(keyedBy: Key.self)
        try root.encode(id, forKey: .id)
        try root.encodeIfPresent(policy, forKey: .networkPolicy)
        try root.encodeIfPresent(expiresAt.map(Timestamp.text(of:)), forKey: .expiresAt)
        if !metadata.isEmpty { try root.encode(metadata, forKey: .metadata) }
        var form = root.nestedContainer(keyedBy: AttachmentKey.self, forKey: .attachment)
        switch attachment {
        case .create: try form.encode(true, forKey: .create)
        case .netns(let path): try form.encode(path, forKey: .netns)
        case .pid(let number): try form.encode(number, forKey: .pid)
        case .container(let name): try form.encode(name, forKey: .container)
        }
        if inbound.isEmpty {
            try form.encode("none", forKey: .inbound)
        } else {
            try form.encode(inbound.map(\.description), forKey: .inbound)
        }
        if acceptsRawSockets { try form.encode(true, forKey: .acceptRawSockets) }
        if acceptsSidePaths { try form.encode(true, forKey: .acceptSidePaths) }
        if let upstreamInside {
            try form.encode(true, forKey: .upstreamInside)
            let servers = upstreamInside.nameservers.map(\.description)
            if !servers.isEmpty { try form.encode(servers, forKey: .nameservers) }
            if upstreamInside.asksDocker { try form.encode(true, forKey: .dockerNames) }
            let domains = upstreamInside.dockerDomains.map(\.description)
            if !domains.isEmpty { try form.encode(domains, forKey: .dockerDomains) }
        }
        if let ask {
            if let seconds = ask.seconds {
                try form.encode(seconds, forKey: .ask)
            } else {
                try form.encode(true, forKey: .ask)
            }
        }
        var status = root.nestedContainer(keyedBy: StatusKey.self, forKey: .status)
        try status.encode(state.rawValue, forKey: .state)
        if !reason.isEmpty { try status.encode(reason, forKey: .reason) }
        if !message.isEmpty { try status.encode(message, forKey: .message) }
        try status.encode(Timestamp.text(of: lastTransitionAt), forKey: .lastTransitionAt)
        try status.encode(Timestamp.text(of: createdAt), forKey: .createdAt)
        try status.encode(revision, forKey: .revision)
        try status.encodeIfPresent(lockedAt.map(Timestamp.text(of:)), forKey: .lockedAt)
        if let namespace {
            try status.encode(namespace.path, forKey: .namespace)
            try status.encode("\(namespace.inode)", forKey: .inode)
            try status.encode(namespace.bootID, forKey: .bootID)
        }
    }

    /// The bytes of the file. A policy that has grown so large that they could not be read again is refused.
    var stored: [UInt8] {
        get throws {
            for (field, rules) in [("egress", policy?.rules), ("setup.egress", policy?.setup?.rules)] {
                guard let count = rules?.count, count > DocumentLimits.rules else { continue }
                let why = "\(count) rules: at most \(DocumentLimits.rules) are accepted"
                throw NodeError.unprocessable(field: "networkPolicy.\(field)", why)
            }
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]
            let bytes = Array(try encoder.encode(self)) + [UInt8(ascii: "\n")]
            guard bytes.count <= DocumentLimits.storedBytes else {
                let why = "\(bytes.count) bytes on the disk: at most \(DocumentLimits.storedBytes) are accepted"
                throw NodeError.unprocessable(field: "networkPolicy", why)
            }
            return bytes
        }
    }

    /// Reads what ``stored`` wrote. `file` is for messages.
    init(stored bytes: [UInt8], file: String) throws(DocumentError) {
        let request = try CreateRequest.load(stored: bytes, file: file)
        let status = try StoredStatus(bytes: bytes, file: file)
        guard let id = request.id else { throw status.missing("id") }
        self.init(request, id: id, now: try status.time("createdAt"))
        guard let state = State(rawValue: try status.text("state")) else { throw status.missing("state") }
        enter(
            state,
            reason: status.optionalText("reason") ?? "",
            message: status.optionalText("message") ?? "",
            at: try status.time("lastTransitionAt")
        )
        if status.optionalText("lockedAt") != nil { lock(at: try status.time("lockedAt")) }
        revision = try status.number("revision")
        guard let path = status.optionalText("namespace") else { return }
        guard let inode = UInt64(try status.text("inode")) else { throw status.missing("inode") }
        namespace = NamespaceReference(path: path, inode: inode, bootID: try status.text("bootID"))
    }
}
