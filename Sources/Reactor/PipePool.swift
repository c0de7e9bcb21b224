internal import CLinux
import Glibc

/// A pipe whose pages carry bytes from one socket to another without copying them.
struct SplicePipe {
    let readEnd: CInt
    let writeEnd: CInt

    func close() {
        _ = Glibc.close(readEnd)
        _ = Glibc.close(writeEnd)
    }
}

/// A loop's pipes. They are taken when bytes flow and given back when they are empty, so an idle relay has none.
final class PipePool {
    /// The most that the system gives by default (fs.pipe-max-size), and measured best: two thirds of the CPU a byte
    /// of 256 KiB, with one stream and with eight.
    static let pipeSize = 1024 * 1024
    /// The most that wait to be used again.
    static let idleLimit = 64
    /// The most at once. A pipe that is held pins up to its size in the kernel; who finds none copies instead.
    static let limit = 256

    private var idle: [SplicePipe] = []
    /// Pipes that wait to be used.
    var idleCount: Int { idle.count }
    /// Pipes that exist, idle ones too.
    private(set) var count = 0

    deinit {
        for pipe in idle { pipe.close() }
    }

    /// An empty pipe; `nil` when there are too many or the system will not give one.
    func take() -> SplicePipe? {
        if let pipe = idle.popLast() { return pipe }
        guard count < Self.limit else { return nil }
        var ends: (CInt, CInt) = (-1, -1)
        let result = withUnsafeMutablePointer(to: &ends) { pointer in
            pointer.withMemoryRebound(to: CInt.self, capacity: 2) { clinux_pipe($0) }
        }
        guard result == 0 else { return nil }
        // Beyond the user's share of pipe pages this is refused; the pipe then works at its default size.
        _ = clinux_set_pipe_size(ends.1, CInt(Self.pipeSize))
        count += 1
        return SplicePipe(readEnd: ends.0, writeEnd: ends.1)
    }

    /// Takes in a pipe that another process made.
    func adopt(_ pipe: SplicePipe) {
        count += 1
    }

    /// Lets go of a pipe that another process goes on with.
    func forget(_ pipe: SplicePipe) {
        count -= 1
    }

    /// Takes back an empty pipe.
    func giveBack(_ pipe: SplicePipe) {
        guard idle.count < Self.idleLimit else { return discard(pipe) }
        idle.append(pipe)
    }

    /// Closes a pipe that holds bytes which nobody will get.
    func discard(_ pipe: SplicePipe) {
        pipe.close()
        count -= 1
    }
}
