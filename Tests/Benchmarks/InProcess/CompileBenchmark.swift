import EgressPolicy
import NetPrimitives

/// Compiling 100,000 rules about names, exact ones and wildcards in turn, in milliseconds of CPU time; "theirs" is 150.
struct CompileBenchmark {
    private static let goal = 150.0

    func run(_ rounds: Int) {
        let rules = (0..<100_000).map { index in
            let name = "service\(index).team\(index % 977).example"
            return Rule(.allow, try! Target(parsing: index % 2 == 0 ? name : "*.\(name)"))
        }
        let policy = Policy(rules: rules)
        for _ in 0..<rounds {
            let (seconds, compiled) = timedOnCPU { CompiledPolicy(policy) }
            use(compiled)
            report(seconds * 1e3, Self.goal)
        }
    }
}
