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

/// Tells when files have been removed (inotify(7)): one watch for each directory they are in. A directory that has several names
/// (/run and /var/run) has one watch for all of them.
private final class FileWatcher: EventSource {
    var onRemoval: (String) -> Void = { _ in }

    private struct Place {
        let path: String
        let watch: CInt
        /// The file's, in its directory.
        let name: String
    }

    private let inotify: CInt
    private var places: [String: Place] = [:]
    /// Whose file it is, by the directory's watch and the file's name. A file that took the place of another one is that of two.
    private var ids: [CInt: [String: Set<String>]] = [:]

    init(loop: EventLoop) throws(SystemError) {
        inotify = inotify_init1(CInt(IN_CLOEXEC) | CInt(IN_NONBLOCK))
        super.init()
        guard inotify >= 0 else { throw .current("watch", "namespaces") }
        try loop.register(self, descriptor: inotify, interest: .readable)
    }

    func watch(_ id: String, path: String) {
        guard let slash = path.lastIndex(of: "/") else { return onRemoval(id) }
        // Of a file that has gone before, not of the one that is in its place now.
        takeEvents()
        let directory = slash == path.startIndex ? "/" : String(path[..<slash])
        let watch = inotify_add_watch(inotify, directory, UInt32(IN_DELETE) | UInt32(IN_MOVED_FROM))
        let place = Place(path: path, watch: watch, name: String(path[path.index(after: slash)...]))
        ids[watch, default: [:]][place.name, default: []].insert(id)
        places[id] = place
        // It may have gone before the watch was there.
        if access(path, F_OK) != 0 { onRemoval(id) }
    }

    func forget(_ id: String) {
        guard let place = places.removeValue(forKey: id) else { return }
        ids[place.watch]?[place.name]?.remove(id)
        if ids[place.watch]?[place.name]?.isEmpty == true { ids[place.watch]?[place.name] = nil }
        guard ids[place.watch]?.isEmpty == true else { return }
        inotify_rm_watch(inotify, place.watch)
        ids[place.watch] = nil
    }

    override func handle(_ readiness: Readiness) {
        takeEvents()
    }

    private func takeEvents() {
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
        for (watch, name) in removed {
            for id in ids[watch]?[name] ?? [] { onRemoval(id) }
        }
        guard hasLost else { return }
        for (id, place) in places where access(place.path, F_OK) != 0 { onRemoval(id) }
    }
}
