internal import CLinux
import Glibc
public import NetPrimitives

extension WallTime {
    /// CLOCK_REALTIME, now.
    public static var current: WallTime {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return WallTime(microseconds: Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1_000)
    }
}

extension MonotonicTime {
    /// CLOCK_MONOTONIC, now. An event loop's ``EventLoop/now`` is that of its current turn.
    public static var current: MonotonicTime {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return MonotonicTime(nanoseconds: UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec))
    }
}
