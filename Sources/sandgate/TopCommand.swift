import ArgumentParser
import CLinux
import FoundationEssentials
import Glibc
import NetPrimitives
import Sandboxes

/// `sandgate top`: what lives in the sandboxes of a running daemon, and what is refused there.
struct TopCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Watch the live connections of a running daemon's sandboxes, and what is refused.",
        discussion: """
            In a terminal: connections by bytes a second, beneath them what was refused last; q leaves. When the daemon \
            ends that is said, and the next one is waited for. Elsewhere, and with --once, one table. Times are UTC; DOWN is to the sandbox, UP from it, in bytes (K is 1,024). A rate counts what \
            passed since the table before. --json prints both of the daemon's answers, connections and refusals, as one \
            document.

            EXAMPLES:
              sandgate top
              sandgate top box --interval 5
              sandgate top --once
              sandgate top box --json
            """
    )

    @OptionGroup var options: DaemonOptions

    @Argument(help: "Only this sandbox.")
    var id: String?

    @Option(help: ArgumentHelp("How long to wait before each look, in seconds.", valueName: "seconds"))
    var interval = 1.0

    @Flag(help: "Print one table and end.")
    var once = false

    private static let intervals = 0.1...3_600
    /// As many connections as the daemon lists.
    private static let connections = 1_000
    /// What was refused before we looked.
    private static let refusals = 50
    /// A daemon that says nothing for so long hangs.
    private static let patienceSeconds = 10
    /// How often it is tried whether there is a daemon again.
    private static let retryInterval = Duration.seconds(1)

    func validate() throws {
        guard Self.intervals.contains(interval) else {
            throw ValidationError("--interval \(interval): expected 0.1 to 3600 seconds")
        }
        if let id { _ = try SandboxPath.component(id) }
    }

    private var client: APIClient {
        var client = options.client
        client.patienceSeconds = Self.patienceSeconds
        return client
    }

    func run() throws {
        guard Screen.isThere, !once, !options.json else { return try printOnce() }
        try watch()
    }

    // MARK: - Asking

    private func target(_ path: String) throws -> String {
        let place = try id.map { "/v1/sandboxes/\(try SandboxPath.component($0))" } ?? "/v1"
        return "\(place)/\(path)"
    }

    private func askConnections() throws -> Data {
        try client.ask("GET", try target("connections?limit=\(Self.connections)"))
    }

    private func refusalQuery() throws -> String {
        "verdict=refused" + (try id.map { "&sandbox=\(try SandboxPath.component($0))" } ?? "")
    }

    /// The newest records, the newest first.
    private func askRefusals() throws -> Data {
        try client.ask("GET", "/v1/audit?order=newest&limit=\(Self.refusals)&\(try refusalQuery())")
    }

    // MARK: - Once

    private func printOnce() throws {
        let connections = try askConnections()
        let refusals = try askRefusals()
        guard !options.json else {
            let parts = [connections, refusals].map { String(decoding: $0, as: UTF8.self) }
            return Console.output(#"{"connections":\#(parts[0]),"refusals":\#(parts[1])}"#)
        }
        var view = try TopView(connections, isOneSandbox: id != nil)
        view.refusals.take(page: refusals)
        view.paper.forEach(Console.output)
    }

    // MARK: - Watching

    private func watch() throws {
        // Whatever is wrong is said before the screen is ours.
        var events = try DaemonEvents(client, "/v1/audit/stream?\(try refusalQuery())")
        var view = try TopView(try askConnections(), isOneSandbox: id != nil)
        view.refusals.take(page: try askRefusals())
        let screen = try Screen()
        defer { screen.leave() }
        let interval = Duration.seconds(self.interval)
        var next = ContinuousClock.now + interval
        while true {
            let size = screen.size
            screen.show(view.lines(columns: size.columns, rows: size.rows), colour: StandardOutput.hasColour)
            guard try wait(until: next, &events, &view) else { return }
            if !events.isConnected { next = min(next, .now + Self.retryInterval) }
            guard ContinuousClock.now >= next else { continue }
            try refresh(&view, &events)
            next = ContinuousClock.now + interval
        }
    }

    /// Looks again. Where the daemon has ended, what it said last stays until there is the next one.
    private func refresh(_ view: inout TopView, _ events: inout DaemonEvents) throws {
        do {
            if events.isConnected {
                view.take(try TopView.decode(try askConnections()))
            } else if events.reconnect() {
                view.begin(with: try TopView.decode(try askConnections()))
                view.refusals.take(page: try askRefusals())
            }
        } catch let refusal as APIRefusal where !refusal.isForNow {
            throw refusal
        } catch {
            events.close()
        }
        view.isDaemonThere = events.isConnected
    }

    /// Waits until it is time for the next look, or the terminal is another one: its size, or whoever went on with us. `false`
    /// when somebody wants to leave.
    private func wait(
        until deadline: ContinuousClock.Instant,
        _ events: inout DaemonEvents,
        _ view: inout TopView
    ) throws -> Bool {
        while ContinuousClock.now < deadline {
            var descriptors = [
                pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0),
                pollfd(fd: events.descriptor, events: Int16(POLLIN), revents: 0),
            ]
            if poll(&descriptors, 2, deadline.millisecondsLeft) < 0 {
                guard errno == EINTR else { throw SetupError("cannot wait: \(String(cString: strerror(errno)))") }
                return true
            }
            if descriptors[0].revents != 0 {
                let keys = Screen.readKeys()
                if keys.isEmpty || keys.contains(UInt8(ascii: "q")) || keys.contains(UInt8(ascii: "Q")) { return false }
            }
            if descriptors[1].revents != 0 {
                guard let news = events.read() else {
                    view.isDaemonThere = false
                    return true
                }
                news.forEach { view.refusals.take($0) }
            }
        }
        return true
    }
}

extension TopView {
    /// A view of the daemon's first answer.
    init(_ answer: Data, isOneSandbox: Bool) throws {
        listing = try Self.decode(answer)
        rates = ConnectionRates()
        refusals = RecentRefusals()
        self.isOneSandbox = isOneSandbox
        rates.take(listing)
    }

    static func decode(_ answer: Data) throws -> ConnectionsDocument {
        try JSONDecoder().decode(ConnectionsDocument.self, from: answer)
    }

    /// Another daemon than the one before: neither its connections nor its records go on with the others' numbers.
    mutating func begin(with answer: ConnectionsDocument) {
        (rates, refusals) = (ConnectionRates(), RecentRefusals())
        restart = answer.clock
        take(answer)
    }

    mutating func take(_ answer: ConnectionsDocument) {
        listing = answer
        rates.take(answer)
    }
}
