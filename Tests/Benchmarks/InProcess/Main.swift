import Glibc

/// What is measured inside one process: judgement, and the kernel's sets. Every round prints a line, ours and theirs,
/// in the unit of the row; one right after the other, so that what else the machine does weighs on both.
///
///     sandgate-benchmark policy-decision|policy-compile|pin-latency|ruleset-apply ROUNDS
///     sandgate-benchmark WORK COUNT
///
/// The second form does something so often and prints nothing: callgrind counts (Tests/Benchmarks/instructions.py). Of the
/// first, the last two change the network namespace that they run in, as root; start them in one made for it.
@main struct Main {
    static func main() throws {
        let arguments = CommandLine.arguments
        guard arguments.count == 3, let rounds = Int(arguments[2]), rounds > 0 else { return explain() }
        switch arguments[1] {
        case "policy-decision": DecisionBenchmark().run(rounds)
        case "policy-compile": CompileBenchmark().run(rounds)
        case "pin-latency": try PinBenchmark().run(rounds)
        case "ruleset-apply": try RulesetBenchmark().run(rounds)
        case let word:
            guard let work = CountedWork(rawValue: word) else { return explain() }
            work.run(rounds)
        }
    }

    private static func explain() {
        print("usage: sandgate-benchmark policy-decision|policy-compile|pin-latency|ruleset-apply ROUNDS")
        print("       sandgate-benchmark \(CountedWork.allCases.map(\.rawValue).joined(separator: "|")) COUNT")
        exit(2)
    }
}

/// Prints a round.
func report(_ ours: Double, _ theirs: Double) {
    print(ours, theirs)
    fflush(nil)
}
