public import EgressPolicy
public import NetPrimitives

/// What a create request of OpenSandbox's lifecycle API says to a node: the fields that are a node's to read. All
/// others are somebody else's, and are ignored.
public struct CreateRequest: Hashable, Sendable {
    /// Which network namespace is put under enforcement.
    public enum Attachment: Hashable, Sendable {
        /// One that the node makes.
        case create
        /// The one at a path, such as `/run/netns/NAME`.
        case netns(String)
        /// The one of a process.
        case pid(Int32)
        /// The one of a container, by its id or name.
        case container(String)
    }

    /// How somebody is asked.
    public struct Asking: Hashable, Sendable {
        /// How long a question waits for its answer, in seconds; `nil` for as long as the node has it.
        public var seconds: Int?

        /// Asking with this patience.
        public init(seconds: Int? = nil) { self.seconds = seconds }

        /// The seconds that can be asked for.
        public static let range = 1...3_600
    }

    /// That sockets to the outside are opened in the sandbox's own network, and by whom names are resolved there.
    public struct UpstreamInside: Hashable, Sendable {
        /// The DNS servers to ask from in there, in this order; the node's when there are none.
        public var nameservers: [Endpoint]
        /// Whether names of one label are asked of Docker's resolver in that network.
        public var asksDocker: Bool
        /// Names that are asked of it too, with all below them.
        public var dockerDomains: [DomainName]

        /// From its parts.
        public init(nameservers: [Endpoint] = [], asksDocker: Bool = false, dockerDomains: [DomainName] = []) {
            self.nameservers = nameservers
            self.asksDocker = asksDocker
            self.dockerDomains = dockerDomains
        }

        /// The most servers.
        public static let maximumNameservers = 8
        /// The most names.
        public static let maximumDockerDomains = 16
    }

    /// The sandbox's name; `nil` when the node is to choose one.
    public var id: String?
    /// The policy; `nil` when the node's default applies.
    public var policy: Policy?
    /// When the sandbox's time is over; `nil` for never.
    public var expiresAt: WallTime?
    /// Words of the caller's that come back with the sandbox.
    public var metadata: [String: String]
    /// The namespace.
    public var attachment: Attachment
    /// The TCP ports on which connections from outside are let in, sorted and disjoint; `nil` for the default: every
    /// port of a network that exists, none of one that the node makes, to which there is no way.
    public var inbound: [PortRange]?
    /// Whether the caller accepts that processes in the namespace could get around the rules.
    public var acceptsRawSockets: Bool
    /// Whether the caller accepts what in the namespace could take packets past the rules.
    public var acceptsSidePaths: Bool
    /// `nil` when sockets to the outside are opened in the node's own network.
    public var upstreamInside: UpstreamInside?
    /// Whether somebody is asked about what no rule speaks of, and how long that may take, in seconds; `nil` when nobody is.
    public var ask: Asking?
    /// What is accepted, but probably not meant.
    public var warnings: [Problem]

    /// A request from its parts.
    public init(
        id: String? = nil,
        policy: Policy? = nil,
        expiresAt: WallTime? = nil,
        metadata: [String: String] = [:],
        attachment: Attachment,
        inbound: [PortRange]? = nil,
        acceptsRawSockets: Bool = false,
        acceptsSidePaths: Bool = false,
        upstreamInside: UpstreamInside? = nil,
        ask: Asking? = nil,
        warnings: [Problem] = []
    ) {
        self.id = id
        self.policy = policy
        self.expiresAt = expiresAt
        self.metadata = metadata
        self.attachment = attachment
        self.inbound = inbound
        self.acceptsRawSockets = acceptsRawSockets
        self.acceptsSidePaths = acceptsSidePaths
        self.upstreamInside = upstreamInside
        self.ask = ask
        self.warnings = warnings
    }
}

extension CreateRequest {
    /// The longest id, in bytes: it names a file.
    public static let longestID = 128
    /// How many entries metadata may have, and how long key and value may be, in bytes.
    static let metadataLimits = (entries: 64, key: 128, value: 1_024)
    /// The longest time to live, in seconds: 10 years.
    static let longestTimeout: Int64 = 315_576_000

    /// Reads a request. Nothing is taken over in part: the error holds all problems. A `timeout` counts from `now`.
    public static func load(bytes: [UInt8], file: String, now: WallTime) throws(DocumentError) -> CreateRequest {
        try make(try PolicyDocument.tree(bytes, .json, file), file, now)
    }

    /// Reads one from a file of our own. Times that have passed are no error there.
    package static func load(stored bytes: [UInt8], file: String) throws(DocumentError) -> CreateRequest {
        let root = try PolicyDocument.tree(bytes, .json, file, atMost: DocumentLimits.storedBytes)
        return try make(root, file, WallTime(microseconds: .min))
    }

    private static func make(
        _ root: DocumentNode?,
        _ file: String,
        _ now: WallTime
    ) throws(DocumentError) -> CreateRequest {
        var reader = CreateRequestReader(file: file, now: now)
        let request = reader.read(root)
        try PolicyDocument.refuse(reader.problems)
        return request
    }

    /// Reads the policy of a request alone; without one, everything is denied.
    public static func loadPolicy(bytes: [UInt8], file: String, now: WallTime) throws(DocumentError) -> Policy {
        let root = try PolicyDocument.tree(bytes, .json, file)
        var reader = PolicyReader(file: file, now: now)
        guard let root, case .mapping(let members) = root.value,
            let member = members.first(where: { $0.key == "networkPolicy" })
        else { return Policy() }
        let policy = reader.readPolicy(member.value, member.key)
        try PolicyDocument.refuse(reader.problems)
        return policy
    }

    /// Reads the body of a renewal: `{"expiresAt": TIME}`.
    public static func loadExpiry(bytes: [UInt8], file: String, now: WallTime) throws(DocumentError) -> WallTime {
        let root = try PolicyDocument.tree(bytes, .json, file)
        var reader = CreateRequestReader(file: file, now: now)
        let expiry = reader.readRenewal(root)
        try PolicyDocument.refuse(reader.problems)
        return expiry ?? now
    }

    /// Whether `id` may name a sandbox: letters, digits, `.`, `_` and `-`, the first of them a letter or digit.
    public static func isValidID(_ id: String) -> Bool {
        guard (1...longestID).contains(id.utf8.count), let first = id.utf8.first, isAlphanumeric(first) else {
            return false
        }
        return id.utf8.allSatisfy { isAlphanumeric($0) || ".-_".utf8.contains($0) }
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: false
        }
    }
}

/// Makes a request of a document's tree.
private struct CreateRequestReader {
    private var reader: PolicyReader
    private let now: WallTime

    init(file: String, now: WallTime) {
        reader = PolicyReader(file: file, now: now)
        self.now = now
    }

    var problems: [Problem] { reader.problems }

    mutating func read(_ root: DocumentNode?) -> CreateRequest {
        var request = CreateRequest(attachment: .create)
        guard let root, case .mapping(let members) = root.value else {
            reader.report(root?.position ?? .init(), "", "expected a create request, found \(root?.kind ?? "nothing")")
            return request
        }
        var seen: [String: DocumentNode.Position] = [:]
        var hasAttachment = false
        for member in members {
            let (key, value) = (member.key, member.value)
            let isOurs = ["id", "networkPolicy", "timeout", "expiresAt", "metadata", "attachment"].contains(key)
            guard isOurs else { continue }
            if seen.updateValue(member.position, forKey: key) != nil {
                reader.report(member.position, key, "duplicate key")
            }
            guard !value.isNull else { continue }
            switch key {
            case "id": request.id = readID(value)
            case "networkPolicy": request.policy = reader.readPolicy(value, key)
            case "timeout": request.expiresAt = readTimeout(value) ?? request.expiresAt
            case "expiresAt": request.expiresAt = readExpiry(value) ?? request.expiresAt
            case "metadata": request.metadata = readMetadata(value)
            default:
                hasAttachment = true
                readAttachment(value, &request)
            }
            if value.isNull { seen[key] = nil }
        }
        if let position = seen["timeout"], seen["expiresAt"] != nil {
            reader.report(position, "timeout", "stands beside expiresAt: only one of them is accepted")
        }
        if !hasAttachment {
            reader.report(root.position, "attachment", "missing: expected \(Self.attachmentForms)")
        }
        request.warnings = reader.warnings
        return request
    }

    private mutating func readID(_ node: DocumentNode) -> String? {
        guard let id = reader.text(node, "id") else { return nil }
        guard CreateRequest.isValidID(id) else {
            reader.report(
                node.position,
                "id",
                "expected 1 to \(CreateRequest.longestID) letters, digits, dots, hyphens and underscores, beginning "
                    + "with a letter or digit"
            )
            return nil
        }
        return id
    }

    private mutating func readTimeout(_ node: DocumentNode) -> WallTime? {
        guard case .number(let text) = node.value, let seconds = Int64(text),
            (1...CreateRequest.longestTimeout).contains(seconds)
        else {
            reader.report(
                node.position,
                "timeout",
                "expected whole seconds of 1...\(CreateRequest.longestTimeout), found \(node.kind)"
            )
            return nil
        }
        return now.advanced(bySeconds: seconds)
    }

    private mutating func readExpiry(_ node: DocumentNode) -> WallTime? {
        guard let time = reader.readTime(node, "expiresAt") else { return nil }
        if time <= now { reader.report(node.position, "expiresAt", "has passed") }
        return time
    }

    mutating func readRenewal(_ root: DocumentNode?) -> WallTime? {
        guard let root, case .mapping(let members) = root.value,
            let member = members.first(where: { $0.key == "expiresAt" })
        else {
            reader.report(root?.position ?? .init(), "expiresAt", "missing: expected {\"expiresAt\": TIME}")
            return nil
        }
        return readExpiry(member.value)
    }

    private mutating func readMetadata(_ node: DocumentNode) -> [String: String] {
        guard case .mapping(let members) = node.value else {
            reader.report(node.position, "metadata", "expected a mapping of strings, found \(node.kind)")
            return [:]
        }
        let limits = CreateRequest.metadataLimits
        guard members.count <= limits.entries else {
            reader.report(node.position, "metadata", "\(members.count) entries: at most \(limits.entries) are accepted")
            return [:]
        }
        var metadata: [String: String] = [:]
        for member in members {
            let path = reader.join("metadata", member.key)
            guard let value = reader.text(member.value, path) else { continue }
            if member.key.utf8.count > limits.key || value.utf8.count > limits.value {
                reader.report(
                    member.position,
                    path,
                    "too long: at most \(limits.key) bytes of key and \(limits.value) of value are accepted"
                )
            }
            if metadata.updateValue(value, forKey: member.key) != nil {
                reader.report(member.position, path, "duplicate key")
            }
        }
        return metadata
    }

    private mutating func readInbound(_ node: DocumentNode, _ path: String) -> [PortRange]? {
        switch node.text {
        case "all": return [.all]
        case "none": return []
        case nil: break
        case _?:
            reader.report(node.position, path, "expected all, none or a list of ports, found \(node.kind)")
            return nil
        }
        return PortRange.merged(reader.readPorts(node, path))
    }

    private mutating func readAsking(_ node: DocumentNode, _ path: String) -> CreateRequest.Asking? {
        let range = CreateRequest.Asking.range
        switch node.value {
        case .bool(let isAsking): return isAsking ? CreateRequest.Asking() : nil
        case .number(let text):
            guard let seconds = Int(text), range.contains(seconds) else { fallthrough }
            return CreateRequest.Asking(seconds: seconds)
        default:
            reader.report(
                node.position,
                path,
                "expected true, false or whole seconds of \(range.lowerBound)...\(range.upperBound), found \(node.kind)"
            )
            return nil
        }
    }

    private mutating func readFlag(_ node: DocumentNode, _ path: String) -> Bool {
        if case .bool(let isSet) = node.value { return isSet }
        reader.report(node.position, path, "expected true or false, found \(node.kind)")
        return false
    }

    /// What says that sockets to the outside are opened inside, and what stands beside that alone.
    private mutating func readUpstream(
        _ members: [DocumentNode.Member],
        _ path: String,
        _ request: inout CreateRequest
    ) {
        var (isInside, upstream) = (false, CreateRequest.UpstreamInside())
        for member in members {
            let (value, path) = (member.value, reader.join(path, member.key))
            switch member.key {
            case "nameservers": upstream.nameservers = readNameservers(value, path)
            case "dockerNames": upstream.asksDocker = readFlag(value, path)
            case "dockerDomains": upstream.dockerDomains = readDomains(value, path)
            default: isInside = readFlag(value, path)
            }
        }
        if isInside { request.upstreamInside = upstream }
        if !upstream.dockerDomains.isEmpty, !upstream.asksDocker, let first = members.first {
            reader.report(first.position, path, "dockerDomains stands beside \"dockerNames\": true alone")
        }
        guard !isInside, upstream != .init(), let first = members.first else { return }
        reader.report(first.position, path, "nameservers and dockerNames stand beside \"upstreamInside\": true alone")
    }

    private mutating func readDomains(_ node: DocumentNode, _ path: String) -> [DomainName] {
        let most = CreateRequest.UpstreamInside.maximumDockerDomains
        return readList(node, path, of: "names", most: most) { reader, position, path, text in
            let name = try? DomainName(text)
            if name == nil { reader.report(position, path, "expected a name, such as internal, found \(text)") }
            return name
        }
    }

    private mutating func readNameservers(_ node: DocumentNode, _ path: String) -> [Endpoint] {
        let most = CreateRequest.UpstreamInside.maximumNameservers
        return readList(node, path, of: "DNS servers", most: most) { reader, position, path, text in
            guard let server = Endpoint(parsing: text, defaultPort: 53) else {
                reader.report(position, path, "expected IP, IPv4:PORT or [IPv6]:PORT, found \(text)")
                return nil
            }
            // There the sandbox could answer in its name.
            if server.address.isLoopback {
                reader.report(
                    position,
                    path,
                    "\(server) is in the sandbox itself, which could answer in its name; for Docker's resolver, say dockerNames"
                )
            }
            return server
        }
    }

    /// A list of 1 to `most` texts, each as `read` takes it; what it does not take it reports.
    private mutating func readList<Item>(
        _ node: DocumentNode,
        _ path: String,
        of things: String,
        most: Int,
        read: (inout PolicyReader, DocumentNode.Position, _ path: String, _ text: String) -> Item?
    ) -> [Item] {
        guard case .sequence(let items) = node.value, (1...most).contains(items.count) else {
            reader.report(node.position, path, "expected a list of 1 to \(most) \(things), found \(node.kind)")
            return []
        }
        return items.enumerated().compactMap { index, item in
            let path = "\(path)[\(index)]"
            guard let text = reader.text(item, path) else { return nil }
            return read(&reader, item.position, path, text)
        }
    }

    private static let attachmentForms =
        "{\"create\": true}, {\"netns\": PATH}, {\"pid\": NUMBER} or {\"container\": ID}"

    private mutating func readAttachment(_ node: DocumentNode, _ request: inout CreateRequest) {
        let path = "attachment"
        let kinds = ["create", "netns", "pid", "container"]
        let upstream = ["upstreamInside", "nameservers", "dockerNames", "dockerDomains"]
        let others = ["inbound", "acceptRawSockets", "acceptSidePaths", "ask"]
        guard let members = reader.members(of: node, path, allowed: kinds + others + upstream) else { return }
        let stated = members.filter { kinds.contains($0.key) }
        guard stated.count == 1 else {
            return reader.report(node.position, path, "expected exactly one of \(Self.attachmentForms)")
        }
        readUpstream(members.filter { upstream.contains($0.key) }, path, &request)
        for member in members where !upstream.contains(member.key) {
            let (value, path) = (member.value, reader.join(path, member.key))
            switch member.key {
            case "acceptRawSockets": request.acceptsRawSockets = readFlag(value, path)
            case "acceptSidePaths": request.acceptsSidePaths = readFlag(value, path)
            case "inbound": request.inbound = readInbound(value, path)
            case "ask": request.ask = readAsking(value, path)
            case "create":
                guard case .bool(true) = value.value else {
                    reader.report(value.position, path, "expected true, found \(value.kind)")
                    continue
                }
                request.attachment = .create
            case "netns":
                guard let text = reader.text(value, path) else { continue }
                guard text.hasPrefix("/"), !text.utf8.contains(0), text.utf8.count < 4_096 else {
                    reader.report(value.position, path, "expected an absolute path, such as /run/netns/NAME")
                    continue
                }
                request.attachment = .netns(text)
            case "pid":
                guard case .number(let text) = value.value, let pid = Int32(text), pid > 0 else {
                    reader.report(value.position, path, "expected the number of a process, found \(value.kind)")
                    continue
                }
                request.attachment = .pid(pid)
            default:
                guard let text = reader.text(value, path) else { continue }
                guard CreateRequest.isValidID(text) else {
                    reader.report(value.position, path, "expected the id or name of a container, found \(value.kind)")
                    continue
                }
                request.attachment = .container(text)
            }
        }
        guard let upstream = request.upstreamInside else { return }
        if request.attachment == .create {
            reader.report(node.position, path, "upstreamInside: a network that the node makes leads nowhere")
        }
        if upstream.asksDocker, request.acceptsRawSockets {
            reader.report(
                node.position,
                path,
                "dockerNames stands not beside acceptRawSockets: with CAP_NET_RAW a program could answer in Docker's name"
            )
        }
    }
}
