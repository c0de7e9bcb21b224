/// What a TLS client says when its server has asked for another ClientHello (RFC 8446 4.1.2): in compatibility mode a
/// change of cipher first, and what is left of its early data.
public enum SecondHello: Hashable, Sendable {
    /// Not decided; at least this many bytes in all are needed.
    case needMore(Int)
    /// So many bytes come before it, which say nothing that a server would go by.
    case passes(Int)
    /// The hello.
    case hello(ClientHello)
    /// Neither.
    case malformed(WireError)

    private static let headerLength = 5
    private static let handshake: UInt8 = 22
    /// Changes of cipher, alerts, and application data.
    private static let others: Set<UInt8> = [20, 21, 23]
    /// The most bytes of an encrypted record (RFC 8446 5.2).
    private static let recordLimit = (1 << 14) + 256

    /// Looks at everything that was received behind the first hello and has not passed.
    public static func examine(_ bytes: [UInt8]) -> SecondHello {
        var position = 0
        while position < bytes.count, bytes[position] != handshake {
            guard others.contains(bytes[position]) else {
                return malformed(WireError(offset: position, problem: "no record that may come before a ClientHello"))
            }
            guard bytes.count - position >= headerLength else { return behind(position, headerLength) }
            let length = Int(bytes[position + 3]) << 8 | Int(bytes[position + 4])
            guard bytes[position + 1] == 3, (1...recordLimit).contains(length) else {
                return malformed(WireError(offset: position, problem: "no header of a TLS record"))
            }
            let end = position + headerLength + length
            guard bytes.count >= end else { return behind(position, headerLength + length) }
            position = end
        }
        guard position == 0 else { return passes(position) }
        var parser = ClientHelloParser()
        switch parser.parse(bytes) {
        case .needMore(let count): return needMore(count)
        case .hello(let hello): return .hello(hello)
        case .malformed(let error): return malformed(error)
        case .notTLS: return malformed(WireError(offset: 0, problem: "not TLS"))
        }
    }

    /// What is whole passes before the rest is waited for.
    private static func behind(_ position: Int, _ count: Int) -> SecondHello {
        position > 0 ? passes(position) : needMore(count)
    }
}
