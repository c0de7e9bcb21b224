/// The data of an SVCB or HTTPS record (RFC 9460 2.2): a priority, a target and parameters in ascending order of their
/// keys.
///
/// Two things are taken out before a sandbox sees it. `ech` would let a ClientHello hide the name that it is judged by,
/// and an address hint is an address that nobody pinned.
public enum ServiceBinding {
    private static let mandatory: UInt16 = 0
    /// `ipv4hint`, `ech` and `ipv6hint` (RFC 9460 14.3.2).
    private static let removedKeys: Set<UInt16> = [4, 5, 6]

    /// The data without the parameters that must not be released. `nil` when a client would have to understand one of
    /// them (its key stands in `mandatory`), so that the record is useless without; or when the data is malformed.
    public static func sanitize(_ data: [UInt8]) -> [UInt8]? {
        do {
            return try rebuild(data)
        } catch {
            return nil
        }
    }

    private static func rebuild(_ data: [UInt8]) throws(WireError) -> [UInt8]? {
        var reader = DNSReader(data)
        var rebuilt = Array(try reader.readBytes(2))
        rebuilt += try reader.readUncompressedName().bytes
        var previous = -1
        while !reader.isAtEnd {
            let key = try reader.readUInt16()
            guard Int(key) > previous else { throw reader.error("parameter keys are not in ascending order") }
            previous = Int(key)
            let value = Array(try reader.readBytes(Int(try reader.readUInt16())))
            if key == mandatory, try !keys(in: value).isDisjoint(with: removedKeys) { return nil }
            if removedKeys.contains(key) { continue }
            rebuilt += [UInt8(key >> 8), UInt8(truncatingIfNeeded: key)]
            rebuilt += [UInt8(value.count >> 8), UInt8(truncatingIfNeeded: value.count)]
            rebuilt += value
        }
        return rebuilt
    }

    private static func keys(in mandatory: [UInt8]) throws(WireError) -> Set<UInt16> {
        var reader = DNSReader(mandatory)
        var keys: Set<UInt16> = []
        repeat { keys.insert(try reader.readUInt16()) } while !reader.isAtEnd
        return keys
    }
}
