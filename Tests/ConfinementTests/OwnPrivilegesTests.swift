import CConfinement
import Foundation
import Glibc
import Testing

@testable import Confinement

/// The filters' programs, as the kernel is given them, installed by another process: this one has other tests to run.
@Suite(.enabled(if: isRoot))
struct OwnPrivilegesTests {
    /// Installs a program in a python that then runs `script`, with `call(number, …)` to make system calls: it returns the
    /// error number, or 0. Numbers are by name in `n`.
    private func python(under filter: confinement_filter, _ script: String) throws -> (status: Int32, output: String) {
        var bytes = [UInt8](repeating: 0, count: Int(CONFINEMENT_FILTER_MAX) * 8)
        let length = confinement_filter_bytes(filter, &bytes, bytes.count)
        #expect(length > 0 && length % 8 == 0)
        let program = bytes.prefix(length).map { String(format: "%02x", $0) }.joined()
        let prelude = """
            import ctypes, os, platform, socket, threading, time, mmap
            libc = ctypes.CDLL(None, use_errno=True)
            names = 'execve bpf unshare setns mount umount2 ptrace io_uring_setup personality clone3 keyctl openat chroot'.split()
            x86 = [59, 321, 272, 308, 165, 166, 101, 425, 135, 435, 250, 257, 161]
            arm = [221, 280, 97, 268, 40, 39, 117, 425, 92, 435, 219, 56, 51]
            n = dict(zip(names, x86 if platform.machine() == 'x86_64' else arm))
            def call(number, *arguments):
                ctypes.set_errno(0)
                return ctypes.get_errno() if libc.syscall(n[number], *arguments) < 0 else 0
            program = ctypes.create_string_buffer(bytes.fromhex('\(program)'))
            class Description(ctypes.Structure): _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
            description = Description(\(length / 8), ctypes.addressof(program))
            assert libc.prctl(38, 1, 0, 0, 0) == 0
            assert libc.prctl(22, 2, ctypes.byref(description), 0, 0) == 0, ctypes.get_errno()

            """
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/python3")
        process.arguments = ["-c", prelude + script]
        process.standardOutput = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return (
            process.terminationReason == .uncaughtSignal ? -process.terminationStatus : process.terminationStatus, text
        )
    }

    @Test func whatTheProcessIsRefused() throws {
        let script = """
            print(call('execve', 0, 0, 0), call('unshare', 0x40000000), call('setns', -1, 0x40000000), end=' ')
            print(call('mount', 0, 0, 0, 4096, 0))
            print(call('personality', 0xffffffff), call('bpf', -1, 0, 0), call('keyctl', 0, -3, 0))
            print(call('bpf', 5, 0, 0), call('bpf', 16, 0, 0) == 1)
            try: os.fork(); print('forked')
            except OSError as e: print(e.errno)
            for family in (17, 38, 40):
                try: socket.socket(family, socket.SOCK_DGRAM); print('made')
                except OSError as e: print(e.errno, end=' ')
            """
        #expect(try python(under: CONFINEMENT_FILTER_PROCESS, script) == (0, "1 1 1 1\n1 1 1\n1 False\n1\n1 1 1 "))
    }

    @Test func whatIsUnknown() throws {
        let script = "print(call('io_uring_setup', 1, 0), call('clone3', 0, 0), call('personality', 0xffffffff))"
        #expect(try python(under: CONFINEMENT_FILTER_UNKNOWN, script) == (0, "38 38 0\n"))
    }

    @Test(arguments: ["'ptrace', 0, 0, 0, 0", "'chroot', b'/'"])
    func whatEndsTheProcess(call: String) throws {
        #expect(try python(under: CONFINEMENT_FILTER_PROCESS, "call(\(call))\nprint('lives')") == (-SIGSYS, ""))
    }

    @Test func whatTheProcessStillDoes() throws {
        let script = """
            thread = threading.Thread(target=lambda: print('thread')); thread.start(); thread.join()
            for f in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK): socket.socket(f, socket.SOCK_DGRAM)
            socket.socketpair(); print(len(os.listdir('/')) > 0, open('/proc/self/status').read().count('Seccomp:'))
            """
        #expect(try python(under: CONFINEMENT_FILTER_PROCESS, script) == (0, "thread\nTrue 1\n"))
    }

    @Test func networkNamespacesAloneAreMade() throws {
        // Network namespaces; user and mount namespaces not, by either way; and nothing is mounted but by binding.
        let script = """
            print(call('unshare', 0x40000000), call('unshare', 0x10000000), call('unshare', 0x20000), call('unshare', 0x40020000))
            print(call('setns', -1, 0x40000000), call('setns', -1, 0), call('mount', 0, 0, 0, 4096, 0), call('mount', 0, 0, 0, 0, 0))
            print(call('umount2', b'/nowhere', 10), call('umount2', b'/nowhere', 0))
            """
        // EBADF, EFAULT and ENOENT are the kernel's own.
        #expect(try python(under: CONFINEMENT_FILTER_NETWORKS, script) == (0, "0 1 1 1\n9 1 14 1\n2 1\n"))
    }

    #if arch(x86_64)
        @Test func theX32TableEndsTheProcess() throws {
            for filter in [CONFINEMENT_FILTER_PROCESS, CONFINEMENT_FILTER_NETWORKS] {
                #expect(try python(under: filter, "libc.syscall(0x40000000 | 39)").status == -SIGSYS)
            }
        }
    #endif

    @Test func aThreadHoldsWhatItKeeps() async throws {
        let held = try await onThread { () -> HeldPrivileges? in
            try OwnPrivileges.keep([.netAdmin, .netRaw])
            OwnPrivileges.name("keeps-two")
            return HeldPrivileges.threads(of: "self")?.first { $0.name == "keeps-two" }
        }
        #expect(held?.effective == [.netAdmin, .netRaw] && held?.permitted == [.netAdmin, .netRaw])
        #expect(held?.bounding == [] && held?.inheritable == [] && held?.ambient == [])
    }

    @Test func filesOfOthersAreSeenToNeedAnOverride() throws {
        let directory = NSTemporaryDirectory() + "sandgate-override-\(getpid())"
        mkdir(directory, 0o700)
        defer { rmdir(directory) }
        #expect(
            OwnPrivileges.reachesWithoutOverride(writing: [directory, directory + "/new"], reading: ["/etc/shadow"])
        )
        chown(directory, 12_345, 12_345)
        #expect(!OwnPrivileges.reachesWithoutOverride(writing: [directory + "/new"], reading: []))
        // A file that may come, and one that could be read but not be seen to change.
        #expect(!OwnPrivileges.reachesWithoutOverride(writing: [], reading: [directory + "/rules"]))
        chmod(directory, 0o711)
        #expect(!OwnPrivileges.reachesWithoutOverride(writing: [], reading: [directory + "/rules"]))
        chmod(directory, 0o755)
        #expect(OwnPrivileges.reachesWithoutOverride(writing: [], reading: [directory + "/rules"]))
        #expect(access(directory, W_OK) == 0)
    }

    /// Runs `body` on a thread that ends with it.
    private func onThread<Output: Sendable>(_ body: @escaping @Sendable () throws -> Output) async throws -> Output {
        try await withCheckedThrowingContinuation { continuation in
            // The thread that resumes must not be the one that let go: it might start one of Swift's.
            let result = UnsafeMutablePointer<Result<Output, any Error>?>.allocate(capacity: 1)
            result.initialize(to: nil)
            nonisolated(unsafe) let place = result
            let thread = Thread { place.pointee = Result { try body() } }
            thread.start()
            while !thread.isFinished { usleep(1_000) }
            continuation.resume(with: place.pointee!)
            place.deallocate()
        }
    }
}
