import Glibc
public import Reactor

/// What a sidecar knows a network by that it guarded before: a random number, in a file of its own and in the notes of the
/// table that it left there.
///
/// Who could change the network before the first sidecar began in it can have left a table that looks the same, with DNS
/// servers, pins and flows of his own. He does not know the number.
public struct NetworkKey: Hashable, Sendable {
    /// 32 hexadecimal digits.
    private let digits: String

    /// A key that nobody had before.
    static func random() -> NetworkKey {
        NetworkKey(digits: String((0..<32).map { _ in hexadecimal.randomElement()! }))
    }

    private init(digits: String) {
        self.digits = digits
    }

    private static let hexadecimal = "0123456789abcdef"

    /// The key of a directory; `nil` where it has none.
    public init?(keptIn directory: String) throws(SystemError) {
        let bytes: [UInt8]
        do {
            bytes = try DurableFile.read(Self.path(in: directory))
        } catch  where error.errno == ENOENT {
            return nil
        }
        let text = String(decoding: bytes, as: UTF8.self)
        guard text.count == 32, text.allSatisfy({ Self.hexadecimal.contains($0) }) else { return nil }
        digits = text
    }

    /// The key of a directory; a new one where it has none.
    static func kept(in directory: String) throws(SystemError) -> NetworkKey {
        if let key = try NetworkKey(keptIn: directory) { return key }
        let key = NetworkKey.random()
        let path = path(in: directory)
        try DurableFile.write(Array(key.digits.utf8), to: "\(path).new")
        try DurableFile.move("\(path).new", to: path)
        return key
    }

    /// Where the key of a directory is.
    public static func path(in directory: String) -> String { "\(directory)/network.key" }

    /// The key among the notes of a table.
    var note: String { "key \(digits)" }
}
