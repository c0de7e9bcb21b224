public import NetPrimitives

/// What a client asks of a SOCKS5 proxy once its greeting is answered (RFC 1928 4).
public struct SOCKSRequest: Hashable, Sendable {
    /// What is to be done.
    public enum Command: UInt8, Hashable, Sendable {
        /// A TCP connection to the destination.
        case connect = 1
        /// A TCP connection from the destination.
        case bind = 2
        /// Datagrams to anywhere.
        case udpAssociate = 3
    }

    /// Where to.
    public enum Destination: Hashable, Sendable {
        /// A host name, to be resolved by the proxy.
        case name(DomainName)
        /// An address; also one that was written as a name.
        case address(IPAddress)
        /// Bytes in a name's place that are no name and no address.
        case malformedName
    }

    /// What bytes received so far say. It depends on the bytes alone, not on how they were divided.
    public enum Outcome: Hashable, Sendable {
        /// Not decided; at least this many bytes in all are needed.
        case needMore(Int)
        /// A complete request.
        case request(SOCKSRequest)
        /// It cannot be carried out; the reply says why.
        case unsupported(SOCKSReply)
        /// It breaks the format.
        case malformed(WireError)
    }

    /// What is to be done.
    public let command: Command
    /// Where to.
    public let destination: Destination
    /// The destination's port; 0 only where the command is not `connect`.
    public let port: UInt16
    /// How many bytes the request took.
    public let length: Int

    /// Looks at everything received after the greeting. Bytes that follow the request are not looked at.
    public static func parse(_ bytes: [UInt8]) -> Outcome {
        // Byte by byte, so that what is wrong with the beginning is said whatever follows.
        guard bytes.count >= 1 else { return .needMore(headLength) }
        guard bytes[0] == SOCKSGreeting.version else { return malformed(0, "the version is not 5") }
        guard bytes.count >= 2 else { return .needMore(headLength) }
        guard let command = Command(rawValue: bytes[1]) else { return .unsupported(.commandNotSupported) }
        guard bytes.count >= 3 else { return .needMore(headLength) }
        guard bytes[2] == 0 else { return malformed(2, "the reserved byte is not 0") }
        guard bytes.count >= 4 else { return .needMore(headLength) }
        guard let type = AddressType(rawValue: bytes[3]) else { return .unsupported(.addressTypeNotSupported) }
        guard bytes.count >= headLength else { return .needMore(headLength) }
        let address: Range<Int>
        switch type {
        case .v4: address = 4..<8
        case .v6: address = 4..<20
        case .name: address = 5..<(5 + Int(bytes[4]))
        }
        guard !address.isEmpty else { return malformed(4, "the name is empty") }
        let length = address.upperBound + 2
        guard bytes.count >= length else { return .needMore(length) }
        let port = UInt16(bytes[length - 2]) << 8 | UInt16(bytes[length - 1])
        guard port > 0 || command != .connect else { return malformed(length - 2, "the port is 0") }
        let destination = type == .name ? named(bytes[address]) : addressed(bytes[address])
        return .request(SOCKSRequest(command: command, destination: destination, port: port, length: length))
    }

    private enum AddressType: UInt8 {
        case v4 = 1
        case name = 3
        case v6 = 4
    }

    /// The bytes of a request from which its whole length can be told.
    private static let headLength = 5

    private static func malformed(_ offset: Int, _ problem: StaticString) -> Outcome {
        .malformed(WireError(offset: offset, problem: problem))
    }

    private static func addressed(_ bytes: ArraySlice<UInt8>) -> Destination {
        IPAddress(networkBytes: bytes).map(Destination.address) ?? .malformedName
    }

    private static func named(_ bytes: ArraySlice<UInt8>) -> Destination {
        if let address = IPAddress(ascii: bytes) { return .address(address) }
        return (try? DomainName(ascii: bytes)).map(Destination.name) ?? .malformedName
    }
}
