internal import Glibc

/// A string as the kernel has them (names of files, arguments, variables): bytes that end before a NUL, in UTF-8 or not.
///
/// A `String` is text: it replaces what is not UTF-8, holds names for equal that the kernel does not (é in one code point or in
/// two), and sees no slash where something combines with it.
public struct SystemString: Hashable, Sendable {
    /// The bytes, without the NUL.
    public let bytes: [UInt8]

    /// The bytes as they are; what stands behind a NUL is lost on the kernel.
    public init(bytes: some Sequence<UInt8>) {
        self.bytes = Array(bytes)
    }

    /// The bytes of `text` in UTF-8.
    public init(_ text: some StringProtocol) {
        bytes = Array(text.utf8)
    }

    /// The bytes at `pointer`, up to the NUL.
    public init(cString pointer: UnsafePointer<CChar>) {
        bytes = Array(UnsafeRawBufferPointer(start: pointer, count: strlen(pointer)))
    }

    /// With a NUL at the end, as C functions take it.
    public var cString: [CChar] {
        [CChar](unsafeUninitializedCapacity: bytes.count + 1) { buffer, count in
            for (index, byte) in bytes.enumerated() { buffer[index] = CChar(bitPattern: byte) }
            buffer[bytes.count] = 0
            count = bytes.count + 1
        }
    }

    /// Whether there are no bytes.
    public var isEmpty: Bool { bytes.isEmpty }

    /// Whether it begins with the bytes of `other`.
    public func hasPrefix(_ other: SystemString) -> Bool { bytes.starts(with: other.bytes) }

    /// Whether it ends with the bytes of `other`.
    public func hasSuffix(_ other: SystemString) -> Bool { bytes.reversed().starts(with: other.bytes.reversed()) }

    /// What comes behind that many bytes.
    public func dropFirst(_ count: Int) -> SystemString { SystemString(bytes: bytes.dropFirst(count)) }

    /// Of an entry of an environment, `NAME=value`, the name.
    public var variableName: SystemString { SystemString(bytes: bytes.prefix { $0 != UInt8(ascii: "=") }) }

    /// One behind the other.
    public static func + (first: SystemString, second: SystemString) -> SystemString {
        SystemString(bytes: first.bytes + second.bytes)
    }
}

extension SystemString: CustomStringConvertible {
    /// It as text, for people: what is not UTF-8 is replaced.
    public var description: String { String(decoding: bytes, as: UTF8.self) }
}

extension SystemString: Comparable {
    /// By bytes.
    public static func < (first: SystemString, second: SystemString) -> Bool {
        first.bytes.lexicographicallyPrecedes(second.bytes)
    }
}

extension SystemString: ExpressibleByStringInterpolation {
    /// The bytes of a literal in UTF-8.
    public init(stringLiteral text: String) {
        self.init(text)
    }

    /// The bytes of the parts, one behind the other.
    public init(stringInterpolation parts: StringInterpolation) {
        bytes = parts.bytes
    }

    /// Gathers the parts of a literal.
    public struct StringInterpolation: StringInterpolationProtocol {
        fileprivate var bytes: [UInt8] = []

        /// Nothing yet.
        public init(literalCapacity: Int, interpolationCount: Int) {
            bytes.reserveCapacity(literalCapacity + 16 * interpolationCount)
        }

        /// Adds what stands in the literal itself.
        public mutating func appendLiteral(_ text: String) {
            bytes += text.utf8
        }

        /// Adds a string as it is.
        public mutating func appendInterpolation(_ string: SystemString) {
            bytes += string.bytes
        }

        /// Adds a text in UTF-8.
        public mutating func appendInterpolation(_ text: some StringProtocol) {
            bytes += text.utf8
        }

        /// Adds a number in decimal.
        public mutating func appendInterpolation(_ number: some BinaryInteger) {
            bytes += String(number).utf8
        }
    }
}

// MARK: - Paths

extension SystemString {
    private static let slash = UInt8(ascii: "/")

    /// The names in a path.
    public var components: [SystemString] { bytes.split(separator: Self.slash).map { SystemString(bytes: $0) } }

    /// The path without its last name: empty for what lies in the root directory, `nil` for a name alone.
    public var parent: SystemString? {
        bytes.lastIndex(of: Self.slash).map { SystemString(bytes: bytes[..<$0]) }
    }

    /// Whether this path is `directory` or lies below it; both without symbolic links.
    public func isBelow(_ directory: SystemString) -> Bool {
        if self == directory || directory.bytes == [Self.slash] { return true }
        return hasPrefix(directory) && bytes[directory.bytes.count] == Self.slash
    }
}
