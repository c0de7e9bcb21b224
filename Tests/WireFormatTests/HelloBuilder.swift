/// Writes ClientHellos, well-formed unless told otherwise.
struct HelloBuilder {
    var handshakeType: UInt8 = 1
    var legacyVersion: UInt16 = 0x0303
    var sessionID = [UInt8](repeating: 7, count: 32)
    var cipherSuites: [UInt8] = [0x13, 0x01, 0x13, 0x02]
    var compressionMethods: [UInt8] = [0]
    var extensions: [(type: UInt16, data: [UInt8])]? = []
    var trailing: [UInt8] = []

    init(serverName: String? = "example.com") {
        if let serverName { add(0, Self.serverNames([(0, Array(serverName.utf8))])) }
        add(10, [0, 2, 0, 29])
    }

    mutating func add(_ type: UInt16, _ data: [UInt8]) {
        extensions?.append((type, data))
    }

    /// The handshake message.
    var message: [UInt8] {
        var body = Self.big(legacyVersion) + [UInt8](repeating: 0x5a, count: 32)
        body += Self.vector8(sessionID) + Self.vector16(cipherSuites) + Self.vector8(compressionMethods)
        if let extensions {
            body += Self.vector16(extensions.flatMap { Self.big($0.type) + Self.vector16($0.data) })
        }
        body += trailing
        return [handshakeType] + Self.vector24(body)
    }

    /// The message in records of at most `size` bytes.
    func records(of size: Int = 16384) -> [UInt8] {
        let message = message
        return stride(from: 0, to: message.count, by: size).flatMap {
            Self.record(Array(message[$0..<min($0 + size, message.count)]))
        }
    }

    static func record(_ fragment: [UInt8], type: UInt8 = 22, version: UInt16 = 0x0301) -> [UInt8] {
        [type] + big(version) + vector16(fragment)
    }

    static func serverNames(_ names: [(type: UInt8, name: [UInt8])]) -> [UInt8] {
        vector16(names.flatMap { [$0.type] + vector16($0.name) })
    }

    static func protocols(_ names: [String]) -> [UInt8] {
        vector16(names.flatMap { vector8(Array($0.utf8)) })
    }

    static func vector8(_ bytes: [UInt8]) -> [UInt8] { [UInt8(bytes.count)] + bytes }
    static func vector16(_ bytes: [UInt8]) -> [UInt8] { big(UInt16(bytes.count)) + bytes }
    static func vector24(_ bytes: [UInt8]) -> [UInt8] {
        [UInt8(bytes.count >> 16)] + big(UInt16(bytes.count & 0xffff)) + bytes
    }
    static func big(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xff)] }
}
