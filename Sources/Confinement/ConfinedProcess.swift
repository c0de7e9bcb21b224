internal import CConfinement
public import FilePrimitives
internal import Glibc

/// A confined command: set up by ``ConfinedCommand/spawn(_:)``, started by ``release()``. Used from one thread.
///
/// Two descriptors become readable: ``channel`` when the command stopped or ended (call ``service()``), ``pidfd`` when
/// the command and all of its descendants are gone (call ``reap()``). When this object or this process ends, the
/// command and its descendants are killed.
public final class ConfinedProcess {
    /// What ``service()`` found.
    public enum Progress: Hashable, Sendable {
        /// The command lives.
        case running
        /// The set-up command ended, as ``ConfinedProcess/setupStatus`` says; what it started lives on, and the command
        /// waits for ``ConfinedProcess/release()``.
        case setUp
        /// The command ended, and its descendants are being killed; wait for ``ConfinedProcess/pidfd`` and stop watching
        /// ``ConfinedProcess/channel``.
        case ended
    }

    /// Readable when the command and everything it started are gone.
    public let pidfd: CInt
    /// Readable when ``service()`` has something to do.
    public let channel: CInt
    /// The process id of the command's init, which is pid 1 in there.
    public let initProcess: CInt
    /// Unix sockets of the node that could not be hidden from the command, since they were not found: by the names that
    /// their programs gave them.
    public let unplacedSockets: [SystemString]
    /// How the set-up command ended; `nil` while it has not.
    public private(set) var setupStatus: ExitStatus?
    /// Why init could not start the command when it was released; the status is then 125.
    public private(set) var failure: ConfinementError?
    private let terminal: Terminal?
    private var status: ExitStatus?
    private var isReaped = false

    init(pidfd: CInt, channel: CInt, initProcess: CInt, _ unplacedSockets: [SystemString]) {
        self.unplacedSockets = unplacedSockets
        self.pidfd = pidfd
        self.channel = channel
        self.initProcess = initProcess
        self.terminal = Terminal()
    }

    deinit {
        if !isReaped {
            kill()
            _ = reap()
        }
        close(channel)
        close(pidfd)
    }

    /// Starts the set-up command, if there is one, and the second time the command. It gets the terminal at once if the user sits there and we hold it.
    public func release() throws(ConfinementError) {
        try order(CONFINEMENT_RELEASE, lendTerminal(onlyIf: Terminal.isInteractive) ? 1 : 0)
    }

    /// Passes a signal on. What a terminal sends to a group (INT, QUIT, TSTP, HUP, WINCH, CONT) goes to the command's
    /// process group, anything else to the command alone. The command's group is never the supervisor's, so nothing
    /// arrives twice.
    public func signal(_ number: CInt) {
        switch number {
        case SIGCONT:
            resume()
        case SIGINT, SIGQUIT, SIGTSTP, SIGHUP, SIGWINCH:
            try? order(CONFINEMENT_SIGNAL, number, 1)
        default:
            try? order(CONFINEMENT_SIGNAL, number, 0)
        }
    }

    /// Kills the command and everything it started.
    public func kill() {
        _ = confinement_signal(pidfd, SIGKILL)
    }

    /// Reads what init has to say, without blocking. When the command was stopped at its terminal this stops the
    /// caller's process group too, and returns when the user continues it. Signals that stop (TSTP, TTIN, TTOU) should
    /// be blocked in every other thread.
    @discardableResult
    public func service() -> Progress {
        while status == nil {
            var message = confinement_message()
            let count = recv(channel, &message, MemoryLayout<confinement_message>.size, CInt(MSG_DONTWAIT))
            if count < 0 && errno == EINTR { continue }
            if count < 0 && errno == EAGAIN { return .running }
            guard count == MemoryLayout<confinement_message>.size else { return .ended }
            switch message.kind {
            case CInt(CONFINEMENT_STOPPED.rawValue): stopped(by: message.value)
            case CInt(CONFINEMENT_SET_UP.rawValue):
                setupStatus = ExitStatus(waitStatus: message.value)
                terminal?.takeBack()
                return .setUp
            case CInt(CONFINEMENT_ENDED.rawValue): status = ExitStatus(waitStatus: message.value)
            case CInt(CONFINEMENT_FAILED.rawValue):
                failure = ConfinementError("cannot start the command", errno: message.detail)
                status = .exited(125)
            default: break
            }
        }
        terminal?.takeBack()
        return .ended
    }

    /// Waits until the command and everything it started are gone, and tells how the command ended. Blocks unless
    /// ``pidfd`` is readable. A command that was killed from outside together with its init ended by SIGKILL.
    public func reap() -> ExitStatus {
        if !isReaped {
            var code: CInt = 0
            var number: CInt = 0
            while confinement_reap(pidfd, 1, &code, &number) < 0 && errno == EINTR {}
            isReaped = true
            _ = service()
            terminal?.takeBack()
        }
        return status ?? .signalled(SIGKILL)
    }

    /// Waits for the command's end, serving it meanwhile. For callers without an event loop.
    public func wait() -> ExitStatus {
        while service() != .ended {
            var source = pollfd(fd: channel, events: Int16(POLLIN), revents: 0)
            poll(&source, 1, -1)
        }
        return reap()
    }
}

extension ConfinedProcess {
    private func order(_ kind: confinement_message_kind, _ value: CInt, _ detail: CInt = 0) throws(ConfinementError) {
        var message = confinement_message(kind: CInt(kind.rawValue), value: value, detail: detail)
        let size = MemoryLayout<confinement_message>.size
        guard send(channel, &message, size, CInt(MSG_NOSIGNAL)) == size else {
            throw ConfinementError("cannot reach the command's init", errno: errno)
        }
    }

    /// Whether the terminal is now the command's to take.
    private func lendTerminal(onlyIf condition: Bool = true) -> Bool {
        guard condition, let terminal, terminal.isOurs else { return false }
        terminal.lend()
        return true
    }

    private func resume() {
        try? order(CONFINEMENT_RESUME, lendTerminal() ? 1 : 0)
    }

    /// The command was stopped. It wanted the terminal: it gets it, if we have it. The user stopped it: we stop as well,
    /// and continue it when we are continued. Without a terminal, and for SIGSTOP, its stop is its own affair.
    private func stopped(by number: CInt) {
        guard let terminal, [SIGTSTP, SIGTTIN, SIGTTOU].contains(number) else { return }
        if number != SIGTSTP && terminal.isOurs { return resume() }
        terminal.takeBack()
        terminal.stopOurselves(number)
        resume()
    }
}
