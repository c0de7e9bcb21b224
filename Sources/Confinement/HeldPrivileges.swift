internal import FilePrimitives

/// What a thread of a live process holds, as /proc tells of it.
public struct HeldPrivileges: Hashable, Sendable {
    /// The thread's number.
    public let thread: Int32
    /// Its name.
    public let name: String
    /// What counts when it does something.
    public let effective: CapabilitySet
    /// What it could make count.
    public let permitted: CapabilitySet
    /// What it could pass on to programs that it executes.
    public let inheritable: CapabilitySet
    /// What it passes on to them.
    public let ambient: CapabilitySet
    /// What programs that it executes could get.
    public let bounding: CapabilitySet
    /// Whether no program that it executes gets more than it has (no_new_privs).
    public let hasNoNewPrivileges: Bool
    /// How many system call filters it is under; 1 where the kernel does not count them (before 5.9) and there are any.
    public let filters: Int
    /// The user it acts as.
    public let user: UInt32

    /// The threads of a process, by their numbers; `nil` when there is no such process or it cannot be read.
    public static func threads(of process: String) -> [HeldPrivileges]? {
        guard let entries = try? FileSystem.entries(in: "/proc/\(process)/task") else { return nil }
        let found = entries.compactMap { entry -> HeldPrivileges? in
            guard let thread = Int32(entry.name.description),
                let status = try? FileSystem.contents(of: "/proc/\(process)/task/\(thread)/status")
            else { return nil }
            return HeldPrivileges(thread: thread, status: String(decoding: status, as: UTF8.self))
        }
        return found.isEmpty ? nil : found.sorted { $0.thread < $1.thread }
    }

    /// From the text of /proc/PID/task/TID/status; `nil` when something is missing there.
    init?(thread: Int32, status: String) {
        var fields: [Substring: Substring] = [:]
        for line in status.split(separator: "\n") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            fields[line[..<colon]] = line[line.index(after: colon)...].drop { $0 == "\t" || $0 == " " }
        }
        func set(_ name: Substring) -> CapabilitySet? {
            fields[name].flatMap { UInt64($0, radix: 16) }.map(CapabilitySet.init(rawValue:))
        }
        let users = fields["Uid"]?.split(separator: "\t") ?? []
        guard let name = fields["Name"], let effective = set("CapEff"), let permitted = set("CapPrm"),
            let inheritable = set("CapInh"), let ambient = set("CapAmb"), let bounding = set("CapBnd"),
            let noNewPrivileges = fields["NoNewPrivs"], users.count == 4, let user = UInt32(users[1])
        else { return nil }
        self.thread = thread
        self.name = String(name)
        self.effective = effective
        self.permitted = permitted
        self.inheritable = inheritable
        self.ambient = ambient
        self.bounding = bounding
        self.hasNoNewPrivileges = noNewPrivileges == "1"
        let isFiltered = fields["Seccomp"] == "2"
        self.filters = isFiltered ? fields["Seccomp_filters"].flatMap { Int($0) } ?? 1 : 0
        self.user = user
    }
}
