import Datapath
import Reactor

/// Somebody outside the sandbox who is asked about what no rule of a run's policy speaks of.
protocol Asker: AnyObject {
    /// Has questions asked, and does what is answered.
    func attend(_ desk: QuestionDesk, on loop: EventLoop) throws

    /// Says that there is nothing more to ask.
    func stop()
}

/// Who is asked during a run.
enum AskedParty {
    /// The program of `--ask-command`, a command line for the shell.
    case command(String)
    /// Whoever sits at the terminal of `--ask-terminal`.
    case terminal(String)

    /// Opens what leads there, for questions about a command in a sandbox.
    func open(about command: [String], in sandbox: String) throws(SetupError) -> any Asker {
        switch self {
        case .command(let program): try AskProgram(program, about: command, in: sandbox)
        case .terminal(let path): try AskTerminal(path, about: command, in: sandbox)
        }
    }
}
