import Datapath
import EgressCore
import Nftables
import PolicyDocument

/// A bound on what one sandbox can take, by the name that it has in configuration files, in `--limit NAME=NUMBER` and in
/// the sidecar's SANDGATE_LIMITS. The page Limits says what each is for, and how it shows when it bites.
struct LimitSetting {
    /// Its name.
    let name: String
    /// What may be set.
    let range: ClosedRange<Int>
    /// What it is, with its unit, in a line.
    let text: String
    /// The number in force.
    let value: (Attachment.Limits) -> Int
    /// Sets the number.
    let set: (inout Attachment.Limits, Int) -> Void

    private init<Number: FixedWidthInteger>(
        _ name: String,
        _ range: ClosedRange<Int>,
        _ path: WritableKeyPath<Attachment.Limits, Number>,
        _ text: String
    ) {
        self.name = name
        self.range = range
        self.text = text
        value = { Int($0[keyPath: path]) }
        set = { $0[keyPath: path] = Number($1) }
    }

    /// All there are.
    static var all: [LimitSetting] { connections + datagrams + queries + addresses + questions + refusals }

    private static let most = 1_000_000
    private static let day = 86_400

    private static var connections: [LimitSetting] {
        [
            LimitSetting("maximumConnections", 1...most, \.maximumConnections, "TCP connections at once"),
            LimitSetting(
                "firstBytesMilliseconds",
                100...600_000,
                \.peekMilliseconds,
                "until a connection has shown what it is"
            ),
            LimitSetting(
                "serverFirstMilliseconds",
                10...60_000,
                \.serverFirstMilliseconds,
                "of silence until its server may speak first"
            ),
            LimitSetting("connectMilliseconds", 100...600_000, \.connectMilliseconds, "until its server has answered"),
            LimitSetting("idleSeconds", 1...30 * day, \.idleSeconds, "without a byte in either direction"),
        ]
    }

    private static var datagrams: [LimitSetting] {
        [
            LimitSetting("maximumDatagramFlows", 1...60_000, \.maximumDatagramFlows, "UDP flows at once"),
            LimitSetting("datagramFlowsPerSecond", 1...100_000, \.datagramFlowsPerSecond, "new UDP flows a second"),
            LimitSetting(
                "datagramIdleSeconds",
                1...day,
                \.datagramIdleSeconds,
                "without a datagram, of a flow without an answer"
            ),
            LimitSetting(
                "answeredDatagramIdleSeconds",
                1...day,
                \.answeredDatagramIdleSeconds,
                "without a datagram, of a flow that was answered"
            ),
            LimitSetting(
                "pendingDatagramBytes",
                1 << 16...1 << 32,
                \.pendingDatagramBytes,
                "of answers that wait in all UDP flows together"
            ),
        ]
    }

    private static var queries: [LimitSetting] {
        [
            LimitSetting("maximumQueries", 1...most, \.queries.maximumPending, "DNS queries that wait at once"),
            LimitSetting("maximumDNSClients", 1...most, \.queries.maximumClients, "DNS clients over TCP at once"),
            LimitSetting(
                "maximumQueriesOfDNSClient",
                1...10_000,
                \.queries.maximumPendingOfClient,
                "queries of one of them that wait at once"
            ),
            LimitSetting(
                "dnsClientIdleSeconds",
                1...day,
                \.queries.clientIdleSeconds,
                "without a query of one of them"
            ),
            LimitSetting("dnsMessageSeconds", 1...day, \.queries.messageSeconds, "until a query of theirs is complete"),
            LimitSetting("newNamesPerMinute", 1...most, \.budget.maximumNames, "new names below a wildcard, a minute"),
            LimitSetting("newNameBytesPerMinute", 1...1 << 30, \.budget.maximumBytes, "bytes of those names, a minute"),
            LimitSetting("cachedAnswers", 0...most, \.cache.maximumEntries, "DNS answers that are kept"),
            LimitSetting("cachedAnswerBytes", 0...1 << 32, \.cache.maximumBytes, "bytes of those answers, roughly"),
        ]
    }

    private static var addresses: [LimitSetting] {
        [
            LimitSetting("maximumPins", 1...most, \.pins.maximumAddresses, "addresses pinned at once"),
            LimitSetting("maximumNamesPerPin", 1...10_000, \.pins.maximumNamesPerAddress, "names pinned to an address"),
            LimitSetting(
                "minimumPinSeconds",
                1...day,
                \.pins.minimumFreshSeconds,
                "that a pin holds, whatever its TTL"
            ),
            LimitSetting(
                "pinGraceSeconds",
                0...30 * day,
                \.pins.graceSeconds,
                "in which an old pin is looked up again"
            ),
            LimitSetting("maximumAnswerAddresses", 1...4_096, \.answers.maximumAddresses, "addresses of one answer"),
            LimitSetting("maximumAnswerRecords", 1...4_096, \.answers.maximumRecords, "other records of one answer"),
            LimitSetting("maximumAliases", 1...128, \.answers.maximumChain, "names in a chain of CNAMEs"),
        ]
    }

    private static var questions: [LimitSetting] {
        [
            LimitSetting("maximumQuestions", 1...1_000, \.questions.maximumOpen, "questions that wait for an answer"),
            LimitSetting(
                "maximumWaitersOfQuestion",
                1...4_096,
                \.questions.maximumWaiters,
                "connections and queries that wait for one of them"
            ),
            LimitSetting("questionsPerMinute", 1...1_000, \.questions.maximumPerMinute, "questions, a minute"),
            LimitSetting("questionSeconds", 1...3_600, \.questions.deadlineSeconds, "until a question is denied"),
            LimitSetting(
                "questionSilenceSeconds",
                0...day,
                \.questions.silenceSeconds,
                "in which what was denied is not asked again"
            ),
            LimitSetting(
                "onceSeconds",
                1...3_600,
                \.questions.onceSeconds,
                "in which connections may begin that were allowed once"
            ),
        ]
    }

    private static var refusals: [LimitSetting] {
        [
            LimitSetting(
                "refusedPacketsPerSecond",
                1...100_000,
                \.refusals.packetsPerSecond,
                "packets refused by the kernel that get a record each, a second"
            ),
            LimitSetting(
                "refusedPacketsAtOnce",
                1...100_000,
                \.refusals.burst,
                "the same, at once"
            ),
        ]
    }
}

extension LimitSetting {
    /// The bounds, with the numbers of `assignments` (`NAME=NUMBER`) in place of the defaults.
    static func apply(_ assignments: [String], to limits: inout Attachment.Limits) throws {
        for assignment in assignments {
            let parts = assignment.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let name = String(parts[0])
            guard let setting = all.first(where: { $0.name == name }) else {
                throw SetupError(
                    "\(name): no such limit: expected \(Spelling.expectation(of: all.map(\.name), for: name))"
                )
            }
            guard parts.count == 2, let number = Int(parts[1]) else {
                throw SetupError("\(name): expected \(name)=NUMBER")
            }
            try setting.set(number, in: &limits)
        }
    }

    /// Sets the number, which has to be in the range.
    func set(_ number: Int, in limits: inout Attachment.Limits) throws {
        guard range.contains(number) else {
            throw SetupError("\(name): expected a number of \(range.lowerBound)...\(range.upperBound)")
        }
        set(&limits, number)
    }

    /// All of them as a part of a configuration file, with their defaults.
    static var documentation: String {
        let limits = Attachment.Limits()
        let lines = all.map { ("\($0.name): \($0.value(limits))", $0.text) }
        let width = lines.map(\.0.count).max() ?? 0
        return lines.map { line, text in
            line + String(repeating: " ", count: width - line.count) + "  # \(text)"
        }.joined(separator: "\n")
    }
}
