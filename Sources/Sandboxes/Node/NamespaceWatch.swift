import CLinux
import Glibc
import NetPrimitives
import Reactor
import Synchronization

/// Notices what happens around sandboxes: that a namespace is gone, by the file or the process that it was named by, and
/// that the node got other addresses. Costs nothing while nothing happens.
final class NamespaceWatch: Sendable {
    private let state: LoopBound<State>

    /// Starts the thread. `onEnd` gets the id of a sandbox whose namespace is gone, at most once, and `onAddresses`
    /// all of the node's addresses when they have changed.
    init(
        onEnd: @escaping @Sendable (String) -> Void,
        onAddresses: @escaping @Sendable ([IPAddress]) -> Void
    ) throws {
        let started = Handover<Result<LoopBound<State>, any Error>>()
        // Files may lie in directories of other users.
        Keeper.start {
            do {
                let loop = try EventLoop()
                let state = try State(
                    loop: loop,
                    onEnd: { id in Keeper.deliver { onEnd(id) } },
                    onAddresses: { addresses in Keeper.deliver { onAddresses(addresses) } }
                )
                started.give(.success(LoopBound(state, to: loop)))
                try loop.run()
            } catch {
                started.give(.failure(error))
            }
        }
        state = try started.take().get()
    }

    /// Begins to watch what the namespace of the sandbox `id` was found by. What is gone already is told of too.
    func watch(_ id: String, at path: String) {
        state.post { $0.watch(id, path) }
    }

    /// Watches a sandbox no more.
    func forget(_ id: String) {
        state.post { $0.forget(id) }
    }

    /// Confined to the watch's thread.
    private final class State {
        private let loop: EventLoop
        private let onEnd: @Sendable (String) -> Void
        private let files: FileWatcher
        private let addresses: NodeAddressWatcher
        private var processes: [String: ProcessWatcher] = [:]

        init(
            loop: EventLoop,
            onEnd: @escaping @Sendable (String) -> Void,
            onAddresses: @escaping @Sendable ([IPAddress]) -> Void
        ) throws {
            self.loop = loop
            self.onEnd = onEnd
            addresses = try NodeAddressWatcher(loop: loop, onChange: onAddresses)
            files = try FileWatcher(loop: loop)
            files.onRemoval = { [unowned self] id in end(id) }
        }

        func watch(_ id: String, _ path: String) {
            // One that is tried again may be watched already; nobody would stop what was put aside.
            forget(id)
            // Files of /proc tell nobody that they go.
            let components = path.split(separator: "/")
            guard components.first == "proc" else { return files.watch(id, path: path) }
            guard components.count > 1, let process = Int32(components[1]),
                let watcher = ProcessWatcher(loop: loop, process: process, onEnd: { [unowned self] in end(id) })
            else { return end(id) }
            processes[id] = watcher
        }

        func forget(_ id: String) {
            files.forget(id)
            processes.removeValue(forKey: id)?.stop()
        }

        private func end(_ id: String) {
            forget(id)
            onEnd(id)
        }
    }
}

/// Tells when a process has ended (pidfd).
private final class ProcessWatcher: EventSource {
    private let loop: EventLoop
    private let descriptor: CInt
    private let onEnd: () -> Void

    /// `nil` when there is no such process.
    init?(loop: EventLoop, process: Int32, onEnd: @escaping () -> Void) {
        self.loop = loop
        self.onEnd = onEnd
        descriptor = clinux_pidfd_open(process)
        super.init()
        guard descriptor >= 0 else { return nil }
        do {
            try loop.register(self, descriptor: descriptor, interest: .readable)
        } catch {
            close(descriptor)
            return nil
        }
    }

    func stop() {
        loop.deregister(self)
        close(descriptor)
    }

    override func handle(_ readiness: Readiness) {
        onEnd()
    }
}

/// Tells when files have been removed (inotify(7)): one watch for each directory they are in.
private final class FileWatcher: EventSource {
    var onRemoval: (String) -> Void = { _ in }

    private struct Directory {
        let watch: CInt
        /// By the file's name.
        var ids: [String: String] = [:]
    }

    private let inotify: CInt
    private var directories: [String: Directory] = [:]
    private var places: [String: (directory: String, name: String)] = [:]

    init(loop: EventLoop) throws(SystemError) {
        inotify = inotify_init1(CInt(IN_CLOEXEC) | CInt(IN_NONBLOCK))
        super.init()
        guard inotify >= 0 else { throw .current("watch", "namespaces") }
        try loop.register(self, descriptor: inotify, interest: .readable)
    }

    func watch(_ id: String, path: String) {
        guard let slash = path.lastIndex(of: "/") else { return onRemoval(id) }
        let directory = slash == path.startIndex ? "/" : String(path[..<slash])
        let name = String(path[path.index(after: slash)...])
        if directories[directory] == nil {
            let events = UInt32(IN_DELETE) | UInt32(IN_MOVED_FROM)
            directories[directory] = Directory(watch: inotify_add_watch(inotify, directory, events))
        }
        directories[directory]?.ids[name] = id
        places[id] = (directory, name)
        // It may have gone before the watch was there.
        if access(path, F_OK) != 0 { onRemoval(id) }
    }

    func forget(_ id: String) {
        guard let (directory, name) = places.removeValue(forKey: id) else { return }
        directories[directory]?.ids[name] = nil
        guard let empty = directories[directory], empty.ids.isEmpty else { return }
        inotify_rm_watch(inotify, empty.watch)
        directories[directory] = nil
    }

    override func handle(_ readiness: Readiness) {
        var hasLost = false
        var removed: [(watch: CInt, name: String)] = []
        var buffer = [UInt8](repeating: 0, count: 64 * 1024)
        while true {
            let count = read(inotify, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            var offset = 0
            let header = MemoryLayout<inotify_event>.size
            while count - offset >= header {
                let event = buffer.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: inotify_event.self) }
                let nameStart = offset + header
                let name = buffer[nameStart..<min(nameStart + Int(event.len), count)].prefix { $0 != 0 }
                if event.mask & UInt32(IN_Q_OVERFLOW) != 0 { hasLost = true }
                removed.append((event.wd, String(decoding: name, as: UTF8.self)))
                offset = nameStart + Int(event.len)
            }
        }
        let byWatch = Dictionary(directories.map { ($1.watch, $0) }) { first, _ in first }
        for (watch, name) in removed {
            guard let directory = byWatch[watch], let id = directories[directory]?.ids[name] else { continue }
            onRemoval(id)
        }
        guard hasLost else { return }
        for (id, place) in places where access("\(place.directory)/\(place.name)", F_OK) != 0 { onRemoval(id) }
    }
}
