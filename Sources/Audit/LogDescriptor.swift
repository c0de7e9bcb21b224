import Glibc

/// Owns a file descriptor: whoever reads or writes holds it, and it is closed when nobody does any more.
final class LogDescriptor {
    let value: CInt

    /// Takes over `value`, an open descriptor.
    init(taking value: CInt) {
        self.value = value
    }

    deinit { close(value) }
}
