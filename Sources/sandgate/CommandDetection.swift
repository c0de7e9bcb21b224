import Audit
import EgressPolicy
import HostDetection

/// `run --detect`: the hosts that the command to run is configured to use.
///
/// What lies in the working directory does not count: a checkout that is not trusted must not write its own policy. The
/// tool that is asked is the one on PATH, whatever path the command has.
struct CommandDetection {
    let command: [String]

    /// The rules, which are told unless it is quiet.
    func rules(isQuiet: Bool) throws -> [Rule] {
        guard let invocation = Tool.Invocation(command: command) else {
            let name = command.first ?? ""
            throw SetupError("--detect: \"\(name)\" is not a tool whose configuration is known: \(Tool.allNames)")
        }
        let detection: Detection
        do {
            detection = try invocation.detect(on: LocalSystem(countsProject: false))
        } catch {
            throw SetupError("--detect: \(error)")
        }
        if !isQuiet { tell(detection, of: invocation.tool) }
        return detection.hosts.map(\.rule)
    }

    private func tell(_ detection: Detection, of tool: Tool) {
        for host in detection.hosts {
            let sources = Printable.text(host.sources.joined(separator: "; "), limit: .max)
            Console.error("--detect: allowed \(host.target), port \(host.port) (\(sources))")
        }
        for note in detection.notes { Console.error("--detect: \(Printable.text(note, limit: .max))") }
        if detection.hosts.isEmpty {
            Console.error("--detect: \(tool.rawValue) is configured to use no host; allow one with --allow")
        }
    }
}
