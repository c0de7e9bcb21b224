internal import Glibc

/// C strings and arrays that stay in place for as long as this object lives: what a cloned process reads before it
/// executes a program, where nothing can be allocated any more.
final class CStrings {
    private var strings: [UnsafeMutablePointer<CChar>] = []
    private var arrays: [UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>] = []

    /// A copy of `text` with a NUL at its end; `nil` stays `nil`.
    func string(_ text: String?) -> UnsafeMutablePointer<CChar>? {
        guard let text else { return nil }
        return bytes(Array(text.utf8))
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
    func array(_ texts: [String?]) -> UnsafeMutablePointer<UnsafeMutablePointer<CChar>?> {
        let array = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(capacity: texts.count + 1)
        for (index, text) in texts.enumerated() { array[index] = string(text) }
        array[texts.count] = nil
        arrays.append(array)
        return array
    }

    deinit {
        strings.forEach { $0.deallocate() }
        arrays.forEach { $0.deallocate() }
    }
}
