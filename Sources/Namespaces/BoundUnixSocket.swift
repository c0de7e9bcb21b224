internal import CLinux
internal import CMnl
internal import Glibc

/// A Unix socket that a program has bound in the file system and that takes connections or datagrams, as the kernel's
/// socket diagnosis tells of it (`<linux/unix_diag.h>`).
///
/// The name is the one that was written in the call to bind(2): it may be relative to a directory that nobody knows, and
/// the file may have been linked or renamed since. The inode is what a connection looks for.
public struct BoundUnixSocket: Hashable, Sendable {
    /// The name it was bound under.
    public let name: String
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
    public init(name: String, inode: UInt32, device: Device) {
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
        guard let socket = mnl_socket_open2(NETLINK_SOCK_DIAG, Int32(SOCK_CLOEXEC.rawValue)) else {
            throw NamespaceError("cannot open a socket diagnosis socket", errno: errno)
        }
        defer { mnl_socket_close(socket) }
        limitPatience(of: mnl_socket_get_fd(socket))
        let request = request()
        guard request.withUnsafeBytes({ mnl_socket_sendto(socket, $0.baseAddress, $0.count) }) == request.count else {
            throw NamespaceError("cannot list unix sockets", errno: errno)
        }
        var found: Set<BoundUnixSocket> = []
        var buffer = [UInt8](repeating: 0, count: 32 * 1024)
        while true {
            let count = mnl_socket_recvfrom(socket, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw NamespaceError("cannot list unix sockets", errno: patienceError(errno)) }
            if try read(buffer[..<count], into: &found) { return found }
        }
    }

    /// A dump of what listens (stream and packet sockets), or is not connected (datagram sockets).
    private static func request() -> [UInt8] {
        let headerSize = MemoryLayout<nlmsghdr>.size
        var header = nlmsghdr()
        header.nlmsg_len = UInt32(headerSize + MemoryLayout<unix_diag_req>.size)
        header.nlmsg_type = UInt16(SOCK_DIAG_BY_FAMILY)
        header.nlmsg_flags = UInt16(NLM_F_REQUEST | NLM_F_DUMP)
        var body = unix_diag_req()
        body.sdiag_family = UInt8(AF_UNIX)
        // States of the kernel's net/tcp_states.h, which it has no header for: TCP_CLOSE and TCP_LISTEN.
        body.udiag_states = 1 << 7 | 1 << 10
        body.udiag_show = UInt32(UDIAG_SHOW_NAME | UDIAG_SHOW_VFS)
        return withUnsafeBytes(of: header, Array.init) + withUnsafeBytes(of: body, Array.init)
    }

    /// Takes the messages of one datagram; whether they were the last.
    private static func read(
        _ datagram: ArraySlice<UInt8>,
        into found: inout Set<BoundUnixSocket>
    ) throws(NamespaceError) -> Bool {
        let headerSize = MemoryLayout<nlmsghdr>.size
        var rest = datagram
        while rest.count >= headerSize {
            let header = rest.withUnsafeBytes { $0.loadUnaligned(as: nlmsghdr.self) }
            let length = Int(header.nlmsg_len)
            // What is cut short may lack a socket, which would not be hidden.
            guard (headerSize...rest.count).contains(length) else {
                throw NamespaceError("cannot list unix sockets", errno: EPROTO)
            }
            let body = rest.dropFirst(headerSize).prefix(length - headerSize)
            if header.nlmsg_type == UInt16(NLMSG_DONE) { return true }
            if header.nlmsg_type == UInt16(NLMSG_ERROR) {
                let error = body.count >= 4 ? body.withUnsafeBytes { -$0.loadUnaligned(as: Int32.self) } : EPROTO
                throw NamespaceError("cannot list unix sockets", errno: error)
            }
            if let socket = BoundUnixSocket(message: body) { found.insert(socket) }
            rest = rest.dropFirst((length + 3) & ~3)
        }
        return false
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
        self.name = String(decoding: name, as: UTF8.self)
        inode = place.udiag_vfs_ino
        // The kernel's own form of a device number: 12 and 20 bits.
        device = Device(major: place.udiag_vfs_dev >> 20, minor: place.udiag_vfs_dev & 0xf_ffff)
    }
}
