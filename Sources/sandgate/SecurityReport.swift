import Confinement
import FoundationEssentials
import Glibc
import NetPrimitives
import Sandboxes

/// What each mode of this program holds once it has set everything up, and what a live process of it really holds.
struct SecurityReport {
    private let machine = Machine()
    /// Why the system call filters cannot be installed here; `nil` when they can.
    private let filterProblem: String?
    private let live: LiveProcess?

    /// Looks at this machine, and at a process if one is given. This process is under the filters from then on.
    init(process: Int32?) throws {
        do {
            try OwnPrivileges.seal()
            filterProblem = nil
        } catch {
            filterProblem = "\(error)"
        }
        live = try process.map(LiveProcess.init)
    }

    /// Whether nothing is amiss.
    var isSound: Bool { filterProblem == nil && live.map(\.isSound) ?? true }

    /// The lines for a person.
    var lines: [String] {
        var lines = ["Linux \(machine.kernel), \(machine.distribution)"]
        lines.append("system call filters: " + (filterProblem.map { "missing: \($0)" } ?? "works"))
        for mode in PrivilegeTable.Mode.allCases {
            let table = PrivilegeTable(mode)
            lines += [
                "", "\(mode.rawValue): no_new_privs, two system call filters, executes nothing once it is set up",
            ]
            for role in table.roles {
                lines.append("  \(Self.words(role, mode))")
                if table.grants(role).isEmpty { lines.append("    no capability") }
                let width = table.grants(role).map { $0.capability.names[0].count }.max() ?? 0
                for grant in table.grants(role) {
                    let name = grant.capability.names[0]
                    let gap = String(repeating: " ", count: width - name.count + 2)
                    lines.append("    \(name)\(gap)\(grant.isRequired ? "" : "where given: ")\(grant.reason)")
                }
            }
        }
        lines += ["", "ports that a sandbox can reach, on its own loopback:"]
        for port in ReachablePort.all {
            lines.append("  \(port.port)/\(port.transports.joined(separator: ","))  the \(port.name)'s")
        }
        lines.append("  a sidecar's API is one more: it is in the network of its sandbox (port 18080 by default)")
        if let live { lines += [""] + live.lines }
        return lines
    }

    fileprivate static func words(_ role: PrivilegeTable.Role, _ mode: PrivilegeTable.Mode) -> String {
        switch (role, mode) {
        case (.loop, .run), (.loop, .rootless): "the thread that supervises the command and carries its traffic"
        case (.other, .run), (.other, .rootless): "the thread that writes to standard error"
        case (.loop, _): "threads that carry traffic"
        case (.keeper, _): "threads that enter and make namespaces"
        case (.other, _): "all others, the API's among them"
        }
    }
}

/// A process of this program, as it is.
private struct LiveProcess {
    let process: Int32
    let mode: PrivilegeTable.Mode
    let threads: [(held: HeldPrivileges, role: PrivilegeTable.Role, excess: [String])]

    init(_ process: Int32) throws {
        guard let held = HeldPrivileges.threads(of: "\(process)") else {
            throw SetupError("--pid \(process): there is no such process, or it cannot be looked at")
        }
        let mode = try Self.mode(of: process, user: held[0].user)
        let table = PrivilegeTable(mode)
        self.process = process
        self.mode = mode
        threads = held.map { held in
            let role = held.role(in: process, mode)
            return (held, role, held.excess(over: table, as: role))
        }
    }

    var isSound: Bool { threads.allSatisfy(\.excess.isEmpty) }

    private static func mode(of process: Int32, user: UInt32) throws -> PrivilegeTable.Mode {
        let line = try PolicyFile.read("/proc/\(process)/cmdline")
        let words = line.split(separator: 0, omittingEmptySubsequences: false).map {
            String(decoding: $0, as: UTF8.self)
        }
        switch words.dropFirst().first {
        case "run":
            let own = words.prefix { $0 != "--" }
            return user != 0 || own.contains("--rootless") ? .rootless : .run
        case "serve": return .serve
        case "sidecar": return .sidecar
        default: throw SetupError("--pid \(process): expected a process of sandgate run, serve or sidecar")
        }
    }

    var lines: [String] {
        let count = threads.count
        var lines = ["process \(process), \(mode.rawValue), \(count.counted("thread")):"]
        for (held, role, excess) in threads {
            let names = held.effective.union(held.permitted).names
            let what = names.isEmpty ? "no capability" : names.joined(separator: ", ")
            lines.append("  \(held.thread)  \(role.rawValue), \(held.filters) filters: \(what)")
            lines += excess.map { "    more than the table says: \($0)" }
        }
        lines.append(isSound ? "nothing more than the table says" : "more than the table says")
        return lines
    }
}

// MARK: - JSON

extension SecurityReport {
    /// The members that `--json` prints.
    struct Document: Encodable {
        struct Capability: Encodable {
            let capability: String
            let reason: String
            let required: Bool
        }

        struct Threads: Encodable {
            let role: String
            let capabilities: [Capability]
        }

        struct Mode: Encodable {
            let mode: String
            let threads: [Threads]
        }

        struct Port: Encodable {
            let name: String
            let port: UInt16
            let transports: [String]
        }

        struct Thread: Encodable {
            let thread: Int32
            let name: String
            let role: String
            let capabilities: [String]
            let bounding: [String]
            let noNewPrivileges: Bool
            let filters: Int
            let excess: [String]
        }

        struct Process: Encodable {
            let process: Int32
            let mode: String
            let sound: Bool
            let threads: [Thread]
        }

        let sound: Bool
        let kernel: String
        let filters: Bool
        let modes: [Mode]
        let ports: [Port]
        let process: Process?
    }

    var document: Document {
        Document(
            sound: isSound,
            kernel: machine.kernel,
            filters: filterProblem == nil,
            modes: PrivilegeTable.Mode.allCases.map { mode in
                let table = PrivilegeTable(mode)
                return Document.Mode(
                    mode: mode.rawValue,
                    threads: table.roles.map { role in
                        Document.Threads(
                            role: role.rawValue,
                            capabilities: table.grants(role).map {
                                .init(capability: $0.capability.names[0], reason: $0.reason, required: $0.isRequired)
                            }
                        )
                    }
                )
            },
            ports: ReachablePort.all.map { .init(name: $0.name, port: $0.port, transports: $0.transports) },
            process: live?.document
        )
    }
}

extension LiveProcess {
    fileprivate var document: SecurityReport.Document.Process {
        .init(
            process: process,
            mode: mode.rawValue,
            sound: isSound,
            threads: threads.map { held, role, excess in
                .init(
                    thread: held.thread,
                    name: held.name,
                    role: role.rawValue,
                    capabilities: held.effective.union(held.permitted).names,
                    bounding: held.bounding.names,
                    noNewPrivileges: held.hasNoNewPrivileges,
                    filters: held.filters,
                    excess: excess
                )
            }
        )
    }
}
