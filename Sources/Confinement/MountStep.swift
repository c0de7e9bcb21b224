internal import CConfinement
internal import FilePrimitives
internal import Glibc

/// One step of the mount set-up that the confined command's init carries out, in its own mount namespace.
struct MountStep: Equatable {
    /// What the step does, with its operands.
    enum Operation: Equatable {
        /// mount(2) of a file system of `type`.
        case mount(type: String, target: SystemString, flags: UInt, options: String = "")
        /// A bind mount, with everything below it when `recursive`.
        case bind(source: SystemString, target: SystemString, recursive: Bool = false)
        /// Moves a mount and what is below it.
        case move(source: SystemString, target: SystemString)
        /// Keeps mounts made here from the node, and mounts made there from here.
        case makePrivate
        /// Makes a mount and what is below it read-only.
        case makeReadOnly(SystemString)
        /// Detaches a mount and what is below it.
        case detach(SystemString)
        /// Makes a directory with exactly this mode.
        case directory(SystemString, mode: UInt32)
        /// Makes a file with exactly this mode and contents.
        case file(SystemString, mode: UInt32, contents: [UInt8] = [])
        /// Makes a symbolic link.
        case link(target: SystemString, at: SystemString)
    }

    /// What to do.
    let operation: Operation
    /// Error numbers that count as success, two at most: what is not there need not be hidden.
    let tolerated: [CInt]

    init(_ operation: Operation, tolerating tolerated: [CInt] = []) {
        precondition(tolerated.count <= 2)
        self.operation = operation
        self.tolerated = tolerated
    }

    /// Makes the directories on the way from `base`, which is there, to a `path` relative to it.
    static func directories(below base: SystemString, towards path: SystemString) -> [MountStep] {
        var directory = base
        return path.components.dropLast().map { component in
            directory = "\(directory)/\(component)"
            return MountStep(.directory(directory, mode: 0o755))
        }
    }

    /// What it means that the step failed.
    var failure: String {
        switch operation {
        case .mount(_, let target, _, _): "cannot mount \(target)"
        case .bind(let source, let target, _): "cannot mount \(source) on \(target)"
        case .move(let source, let target): "cannot move the mount \(source) to \(target)"
        case .makePrivate: "cannot make the mounts private"
        case .makeReadOnly(let path): "cannot make \(path) read-only"
        case .detach(let path): "cannot detach \(path)"
        case .directory(let path, _): "cannot make directory \(path)"
        case .file(let path, _, _): "cannot write \(path)"
        case .link(_, let path): "cannot make link \(path)"
        }
    }

    /// The step as init reads it; its strings live as long as `strings`.
    func encoded(_ strings: CStrings) -> confinement_step {
        var step = confinement_step()
        func fill(
            _ operation: confinement_operation,
            _ target: SystemString,
            _ source: SystemString? = nil,
            flags: UInt = 0
        ) {
            step.operation = Int32(operation.rawValue)
            step.target = UnsafePointer(strings.string(target))
            step.source = UnsafePointer(strings.string(source))
            step.flags = UInt64(flags)
        }
        switch operation {
        case .mount(let type, let target, let flags, let options):
            fill(CONFINEMENT_MOUNT, target, SystemString(type), flags: flags)
            step.type = UnsafePointer(strings.string(SystemString(type)))
            step.data = UnsafePointer(strings.string(SystemString(options)))
        case .bind(let source, let target, let recursive):
            fill(CONFINEMENT_MOUNT, target, source, flags: MountFlag.bind | (recursive ? MountFlag.recursive : 0))
        case .move(let source, let target):
            fill(CONFINEMENT_MOUNT, target, source, flags: MountFlag.move)
        case .makePrivate:
            fill(CONFINEMENT_MOUNT, "/", "none", flags: MountFlag.recursive | MountFlag.private)
        case .makeReadOnly(let path):
            fill(CONFINEMENT_READ_ONLY, path)
        case .detach(let path):
            fill(CONFINEMENT_UNMOUNT, path)
        case .directory(let path, let mode):
            fill(CONFINEMENT_DIRECTORY, path)
            step.mode = mode
        case .file(let path, let mode, let contents):
            fill(CONFINEMENT_FILE, path)
            step.mode = mode
            step.data = UnsafePointer(strings.bytes(contents))
            step.length = contents.count
        case .link(let target, let path):
            fill(CONFINEMENT_LINK, path, target)
        }
        step.tolerated = (tolerated.first ?? 0, tolerated.dropFirst().first ?? 0)
        return step
    }
}

/// Flags of mount(2), from `<linux/mount.h>`; Glibc declares them as an enumeration without names for Swift.
enum MountFlag {
    static let readOnly = UInt(1)
    static let noSetUserID = UInt(2)
    static let noDevices = UInt(4)
    static let noExecution = UInt(8)
    static let bind = UInt(4096)
    static let move = UInt(8192)
    static let recursive = UInt(16384)
    static let `private` = UInt(1 << 18)
    /// What every kernel file system is mounted with.
    static let harmless = noSetUserID | noDevices | noExecution
}
