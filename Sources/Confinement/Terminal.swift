internal import Glibc

/// The terminal that controls this process's session.
///
/// The command has a process group of its own, as under a job-control shell: a signal that it sends to its group must
/// not reach the supervisor or the script that started it. So the terminal is handed over, and taken back when the
/// command stops or ends.
final class Terminal {
    private let descriptor: CInt
    private var isLent = false

    /// `nil` when the session has no terminal.
    init?() {
        descriptor = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC)
        if descriptor < 0 { return nil }
    }

    deinit { close(descriptor) }

    /// Whether the terminal belongs to our process group, so that it is ours to hand over.
    var isOurs: Bool { tcgetpgrp(descriptor) == getpgrp() }

    /// Whether the user sits at both ends of the command: then it gets the terminal from the start. In a pipeline it
    /// gets it when it asks, by reading, for another member (a pager) may be reading.
    static var isInteractive: Bool { isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1 }

    /// Notes that init hands the terminal over.
    func lend() { isLent = true }

    /// Takes the terminal back if it was handed over.
    func takeBack() {
        guard isLent else { return }
        isLent = false
        // A process in the background may set the foreground group only while SIGTTOU is blocked.
        var blocked = sigset_t()
        var before = sigset_t()
        sigemptyset(&blocked)
        sigaddset(&blocked, SIGTTOU)
        pthread_sigmask(SIG_BLOCK, &blocked, &before)
        tcsetpgrp(descriptor, getpgrp())
        pthread_sigmask(SIG_SETMASK, &before, nil)
    }

    /// Stops our process group as the command was stopped, so that the shell sees a stopped job. Returns when the shell
    /// continues it, or at once where nobody could (an orphaned process group: the kernel drops the signal).
    func stopOurselves(_ number: CInt) {
        var action = sigaction()
        var former = sigaction()
        action.__sigaction_handler.sa_handler = SIG_DFL
        sigaction(number, &action, &former)
        var unblocked = sigset_t()
        var before = sigset_t()
        sigemptyset(&unblocked)
        sigaddset(&unblocked, number)
        kill(0, number)
        pthread_sigmask(SIG_UNBLOCK, &unblocked, &before)
        pthread_sigmask(SIG_SETMASK, &before, nil)
        sigaction(number, &former, nil)
    }
}
