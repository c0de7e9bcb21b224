import FilePrimitives
import Foundation
import Glibc
import Namespaces
import Testing

@testable import Confinement

/// Each test is a process of its own that leads a session on a pseudo-terminal, with a thread in the place of the user.
@Suite(.serialized, .enabled(if: isRoot))
struct TerminalTests {
    @Test func anInteractiveCommandHasTheTerminal() async {
        await #expect(processExitsWith: .success) {
            let user = try User()
            user.answer("True", with: "a line\n")
            let script = "import os; print(os.getpgrp() == os.tcgetpgrp(0) == os.getpid()); input()"
            #expect(try runAtTerminal(["python3", "-c", script]) == .exited(0))
            #expect(user.hasTerminalBack)
        }
    }

    @Test func interruptReachesTheCommandAlone() async {
        await #expect(processExitsWith: .success) {
            let user = try User()
            user.answer("ready", with: "\u{3}")
            #expect(try runAtTerminal(["sh", "-c", "echo ready; exec sleep 60"]) == .signalled(SIGINT))
            #expect(user.hasTerminalBack)
        }
    }

    @Test func aStoppedCommandIsContinued() async {
        // Nobody could continue the leader of a session, so the kernel does not stop it, and it continues the command.
        await #expect(processExitsWith: .success) {
            let user = try User()
            user.answer("ready", with: "\u{1a}")
            let script = """
                import os, signal
                signal.signal(signal.SIGCONT, lambda *_: os._exit(9 if os.getpgrp() == os.tcgetpgrp(0) else 1))
                print("ready", flush=True)
                while True: signal.pause()
                """
            #expect(try runAtTerminal(["python3", "-c", script]) == .exited(9))
        }
    }

    @Test func aCommandInAPipelineGetsTheTerminalWhenItReads() async {
        await #expect(processExitsWith: .success) {
            let user = try User()
            let output = unnamedFile("stdout")
            dup2(output, STDOUT_FILENO)
            user.answer("asked", with: "word\n")
            let script = "echo asked >&2; read word; echo got $word"
            #expect(try runAtTerminal(["sh", "-c", script]) == .exited(0))
            #expect(contents(of: output) == "got word\n")
            #expect(user.hasTerminalBack)
        }
    }

    @Test func theTerminalHasAName() async {
        await #expect(processExitsWith: .success) {
            let user = try User()
            // What tty prints can be opened, is the same terminal, and can be asked for its size.
            let script =
                "t=$(tty) && test $t = /dev/console && test $t -ef /proc/self/fd/0 && stty size < $t > /dev/null"
            #expect(try runAtTerminal(["sh", "-c", script]) == .exited(0))
            #expect(user.hasTerminalBack)
        }
    }

    @Test func newTerminalsCanBeMade() async {
        await #expect(processExitsWith: .success) {
            let user = try User()
            let script = "test $(script -qec tty /dev/null | tr -d '\\r') = /dev/pts/0"
            #expect(try runAtTerminal(["sh", "-c", script]) == .exited(0))
            #expect(user.hasTerminalBack)
        }
    }

    @Test func otherTerminalsAreNotThere() async {
        await #expect(processExitsWith: .success) {
            let user = try User()
            let other = try User.Screen()
            #expect(open(other.name, O_RDWR | O_NOCTTY | O_CLOEXEC) >= 0)
            #expect(try runAtTerminal(["sh", "-c", "test ! -e \(other.name) && test ! -e \(user.name)"]) == .exited(0))
            #expect(user.hasTerminalBack)
        }
    }

    @Test func typingForTheUserIsRefusedAtARealTerminal() async {
        await #expect(processExitsWith: .success) {
            let user = try User()
            let script = "import fcntl, sys\ntry: fcntl.ioctl(0, 0x5412, b'x')\nexcept OSError as e: sys.exit(e.errno)"
            #expect(try runAtTerminal(["python3", "-c", script]) == .exited(EPERM))
            #expect(user.hasTerminalBack)
        }
    }
}

/// Runs a command with this process's own standard descriptors.
private func runAtTerminal(_ arguments: [String]) throws -> Confinement.ExitStatus {
    let network = try NetworkNamespace.anonymous()
    let process = try ConfinedCommand.spawn(configuration(arguments, network: network))
    try process.release()
    return process.wait()
}

/// Whoever sits at the other side of a new pseudo-terminal, which becomes this process's own.
private struct User {
    /// A new pseudo-terminal.
    struct Screen {
        let screen: CInt
        let terminal: CInt
        let name: String

        init() throws {
            var pair: (CInt, CInt) = (-1, -1)
            guard openpty(&pair.0, &pair.1, nil, nil, nil) == 0 else {
                throw ConfinementError("cannot make a pseudo-terminal", errno: errno)
            }
            (screen, terminal) = pair
            name = String(cString: ttyname(terminal))
            _ = fcntl(screen, F_SETFD, FD_CLOEXEC)
        }
    }

    /// The terminal's name on the node.
    let name: String
    private let screen: CInt

    init() throws {
        let made = try Screen()
        (screen, name) = (made.screen, made.name)
        let terminal = made.terminal
        setsid()
        _ = ioctl(terminal, UInt(TIOCSCTTY), 0)
        for standard in [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO] { dup2(terminal, standard) }
        close(terminal)
    }

    /// Types `text` once `prompt` is on the screen.
    func answer(_ prompt: String, with text: String) {
        let screen = screen
        Thread.detachNewThread {
            var seen = Data()
            var buffer = [UInt8](repeating: 0, count: 4096)
            while seen.range(of: Data(prompt.utf8)) == nil {
                let count = read(screen, &buffer, buffer.count)
                guard count > 0 else { return }
                seen += buffer[..<count]
            }
            usleep(100_000)
            write(screen, text, text.utf8.count)
        }
    }

    /// Whether the terminal belongs to this process again.
    var hasTerminalBack: Bool { tcgetpgrp(STDIN_FILENO) == getpgrp() }
}
