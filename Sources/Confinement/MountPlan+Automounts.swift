internal import FilePrimitives
internal import Glibc

// Directories of an automounter: whoever looks up a name below one has the automounter, outside, ask a nameserver for it
// and the host that is called so for its files (autofs(5): /net). A mount namespace of its own does not keep a command from
// that; only what is then mounted does not appear in it.
extension MountPlan {
    /// Replaces each by a directory with what is mounted below it already, as home directories are.
    mutating func replaceAutomounts() {
        var replaced: [(point: SystemString, kept: [SystemString])] = []
        let points = table.mounts.filter { $0.isAutomount && !isRenewed($0.point) && isUppermost($0) }.map(\.point)
        for point in Set(points).sorted() {
            // One below another is gone with that, unless it lies in what was kept.
            let outer = replaced.last { point.isBelow($0.point) }
            if let outer, !outer.kept.contains(where: point.isBelow) { continue }
            let kept = mountsKept(below: point)
            replace(point, keeping: kept)
            replaced.append((point, kept))
        }
    }

    private func isUppermost(_ mount: MountedFileSystem) -> Bool { table.isVisible(mount.point, through: mount) }

    /// The outermost of the mounts below an automounter's directory that are none of its own.
    private func mountsKept(below point: SystemString) -> [SystemString] {
        let all = table.mounts.filter {
            $0.point != point && $0.point.isBelow(point) && !$0.isAutomount && isUppermost($0)
        }.map(\.point)
        return Set(all).filter { path in !all.contains { $0 != path && path.isBelow($0) } }.sorted()
    }

    private mutating func replace(_ point: SystemString, keeping kept: [SystemString]) {
        let stage: SystemString = "\(Self.stage)/automount-\(steps.count)"
        steps.append(MountStep(.directory(stage, mode: 0o755)))
        steps.append(
            MountStep(.mount(type: "tmpfs", target: stage, flags: MountFlag.harmless, options: "mode=755"))
        )
        for path in kept {
            let relative = path.dropFirst(point.bytes.count)
            steps += MountStep.directories(below: stage, towards: relative)
            let target = stage + relative
            let isDirectory = FileSystem.kind(of: path) == .directory
            steps.append(MountStep(isDirectory ? .directory(target, mode: 0o755) : .file(target, mode: 0o600)))
            let bind = MountStep.Operation.bind(source: path, target: target, recursive: true)
            // One that has been unmounted meanwhile, or that this user may not pass to.
            steps.append(MountStep(bind, tolerating: [ENOENT, EACCES]))
        }
        steps.append(MountStep(.move(source: stage, target: point)))
    }
}
