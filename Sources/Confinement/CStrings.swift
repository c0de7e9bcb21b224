internal import FilePrimitives
internal import Glibc

/// C strings and arrays that stay in place for as long as this object lives: what a cloned process reads before it
/// executes a program, where nothing can be allocated any more.
final class CStrings {
    private var strings: [UnsafeMutablePointer<CChar>] = []
    private var arrays: [UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>] = []

    /// A copy of `string` with a NUL at its end; `nil` stays `nil`.
    func string(_ string: SystemString?) -> UnsafeMutablePointer<CChar>? {
        string.map { bytes($0.bytes) }
    }

    /// A copy of `bytes` with a NUL at the end.
    func bytes(_ bytes: [UInt8]) -> UnsafeMutablePointer<CChar> {
        let copy = UnsafeMutablePointer<CChar>.allocate(capacity: bytes.count + 1)
        for (index, byte) in bytes.enumerated() { copy[index] = CChar(bitPattern: byte) }
        copy[bytes.count] = 0
        strings.append(copy)
        return copy
    }

    /// A NULL-terminated array of copies. A `nil` among the elements leaves a place to be filled in.
    func array(_ strings: [SystemString?]) -> UnsafeMutablePointer<UnsafeMutablePointer<CChar>?> {
        let array = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(capacity: strings.count + 1)
        for (index, string) in strings.enumerated() { array[index] = self.string(string) }
        array[strings.count] = nil
        arrays.append(array)
        return array
    }

    deinit {
        strings.forEach { $0.deallocate() }
        arrays.forEach { $0.deallocate() }
    }
}
