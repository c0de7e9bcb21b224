internal import CLinux
import Glibc
internal import NetPrimitives

/// A `sockaddr` of either family, as the kernel wants and gives it.
struct SocketAddress {
    private var storage = sockaddr_storage()
    private var length = socklen_t(MemoryLayout<sockaddr_storage>.size)

    /// Room for the kernel to fill.
    init() {}

    /// What the kernel filled elsewhere.
    init(_ storage: sockaddr_storage, _ length: socklen_t) {
        self.storage = storage
        self.length = length
    }

    /// For the kernel to read elsewhere.
    var parts: (sockaddr_storage, socklen_t) { (storage, length) }

    init(_ endpoint: Endpoint) {
        switch endpoint.address.family {
        case .v4:
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = endpoint.port.bigEndian
            address.sin_addr.s_addr = UInt32(truncatingIfNeeded: endpoint.address.value).bigEndian
            store(address)
        case .v6:
            var address = sockaddr_in6()
            address.sin6_family = sa_family_t(AF_INET6)
            address.sin6_port = endpoint.port.bigEndian
            withUnsafeMutableBytes(of: &address.sin6_addr) {
                $0.storeBytes(of: endpoint.address.value.bigEndian, as: UInt128.self)
            }
            store(address)
        }
    }

    private mutating func store<Address>(_ address: Address) {
        withUnsafeMutableBytes(of: &storage) { $0.storeBytes(of: address, as: Address.self) }
        length = socklen_t(MemoryLayout<Address>.size)
    }

    /// The address and port; `nil` for a family other than IPv4 and IPv6.
    var endpoint: Endpoint? {
        withUnsafeBytes(of: storage) { bytes in
            switch CInt(storage.ss_family) {
            case AF_INET:
                let address = bytes.load(as: sockaddr_in.self)
                return Endpoint(
                    IPAddress(v4: UInt32(bigEndian: address.sin_addr.s_addr)),
                    UInt16(bigEndian: address.sin_port)
                )
            case AF_INET6:
                let address = bytes.load(as: sockaddr_in6.self)
                let value = withUnsafeBytes(of: address.sin6_addr) { $0.loadUnaligned(as: UInt128.self) }
                return Endpoint(IPAddress(v6: UInt128(bigEndian: value)), UInt16(bigEndian: address.sin6_port))
            default:
                return nil
            }
        }
    }

    /// Lends the bytes to a system call that reads them.
    func withPointer<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        withUnsafePointer(to: storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
        }
    }

    /// Lends the room to a system call that fills it.
    mutating func fill<Result>(_ body: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Result)
        -> Result
    {
        length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        return withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, &length) }
        }
    }
}
