import Confinement
import Reactor

/// Serves the confined command from the loop and tells when it and everything it started are gone.
final class ProcessWatcher {
    private let loop: EventLoop
    private let process: ConfinedProcess
    private let progress: DescriptorWatcher
    private let end: DescriptorWatcher

    init(
        loop: EventLoop,
        process: ConfinedProcess,
        onSetupEnd: @escaping (ExitStatus) -> Void,
        onEnd: @escaping (ExitStatus) -> Void
    ) throws {
        self.loop = loop
        self.process = process
        progress = DescriptorWatcher()
        end = DescriptorWatcher()
        progress.onReadable = { [unowned loop] watcher in
            switch process.service() {
            case .running: break
            case .setUp: process.setupStatus.map(onSetupEnd)
            case .ended: loop.deregister(watcher)
            }
        }
        end.onReadable = { [unowned loop] watcher in
            loop.deregister(watcher)
            onEnd(process.reap())
        }
        try loop.register(progress, descriptor: process.channel, interest: .readable)
        try loop.register(end, descriptor: process.pidfd, interest: .readable)
    }

    /// Watches no more. To be called before the process is released.
    func stop() {
        loop.deregister(progress)
        loop.deregister(end)
    }
}
