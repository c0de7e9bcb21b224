internal import CLinux
public import FilePrimitives
internal import Glibc

/// A Unix socket that a program has bound in the file system and that takes connections or datagrams, as the kernel's
/// socket diagnosis tells of it (`<linux/unix_diag.h>`).
///
/// The name is the one that was written in the call to bind(2): it may be relative to a directory that nobody knows, and
/// the file may have been linked or renamed since. The inode is what a connection looks for.
public struct BoundUnixSocket: Hashable, Sendable {
    /// The name it was bound under.
    public let name: SystemString
    /// The lower half of the file's inode number.
    public let inode: UInt32
    /// The device of the file's file system, as mountinfo gives it.
    public let device: Device

    /// A device number as the kernel's tables show it. What stat(2) says may differ, as on Btrfs.
    public struct Device: Hashable, Sendable {
        /// The driver's number.
        public let major: UInt32
        /// The device's among the driver's.
        public let minor: UInt32

        /// A number from its parts.
        public init(major: UInt32, minor: UInt32) {
            self.major = major
            self.minor = minor
        }
    }

    /// A socket from its parts.
    public init(name: SystemString, inode: UInt32, device: Device) {
        self.name = name
        self.inode = inode
        self.device = device
    }
}

// MARK: - Asking the kernel

extension BoundUnixSocket {
    /// Those of the calling thread's network namespace. Connected ones, which nobody else can reach, are left out.
    /// - Throws: where the kernel was built without unix_diag, among others.
    public static func all() throws(NamespaceError) -> Set<BoundUnixSocket> {
        var request = unix_diag_req()
        request.sdiag_family = UInt8(AF_UNIX)
        // What listens (stream and packet sockets), or is not connected (datagram sockets). States of the kernel's
        // net/tcp_states.h, which it has no header for: TCP_CLOSE and TCP_LISTEN.
        request.udiag_states = 1 << 7 | 1 << 10
        request.udiag_show = UInt32(UDIAG_SHOW_NAME | UDIAG_SHOW_VFS)
        var found: Set<BoundUnixSocket> = []
        try SocketDiagnosis.ask(request, flags: NLM_F_REQUEST | NLM_F_DUMP, operation: "cannot list unix sockets") {
            if let socket = BoundUnixSocket(message: $0) { found.insert(socket) }
        }
        return found
    }

    /// Reads `struct unix_diag_msg` and its attributes; `nil` for a socket that has no place in the file system.
    init?(message: ArraySlice<UInt8>) {
        var name: [UInt8] = []
        var place: unix_diag_vfs?
        var rest = message.dropFirst(MemoryLayout<unix_diag_msg>.size)
        while rest.count >= 4 {
            let (length, type) = rest.withUnsafeBytes {
                (Int($0.loadUnaligned(as: UInt16.self)), Int($0.loadUnaligned(fromByteOffset: 2, as: UInt16.self)))
            }
            guard (4...rest.count).contains(length) else { return nil }
            let value = rest.dropFirst(4).prefix(length - 4)
            if type == UNIX_DIAG_NAME { name = Array(value.prefix { $0 != 0 }) }
            if type == UNIX_DIAG_VFS, value.count >= MemoryLayout<unix_diag_vfs>.size {
                place = value.withUnsafeBytes { $0.loadUnaligned(as: unix_diag_vfs.self) }
            }
            rest = rest.dropFirst((length + 3) & ~3)
        }
        guard let place else { return nil }
        self.name = SystemString(bytes: name)
        inode = place.udiag_vfs_ino
        // The kernel's own form of a device number: 12 and 20 bits.
        device = Device(major: place.udiag_vfs_dev >> 20, minor: place.udiag_vfs_dev & 0xf_ffff)
    }
}
