import Foundation
import Glibc
import Namespaces
import Testing

@testable import Confinement

@Suite(.serialized, .enabled(if: isRoot))
struct PrivilegeTests {
    @Test func whatIsLeftOfTheCapabilities() throws {
        let outcome = try sh("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status")
        let allowed = "00000000800404fb"
        #expect(
            outcome.output == """
                CapInh:\t0000000000000000
                CapPrm:\t\(allowed)
                CapEff:\t\(allowed)
                CapBnd:\t\(allowed)
                CapAmb:\t0000000000000000
                NoNewPrivs:\t1
                Seccomp:\t2

                """
        )
        #expect(Capability.allowed == UInt64(allowed, radix: 16))
    }

    /// AF_AX25, AF_PACKET, AF_TIPC, AF_ALG, AF_VSOCK, AF_XDP, AF_BLUETOOTH, AF_CAN, AF_RDS
    @Test(arguments: [3, 17, 30, 38, 40, 44, 31, 29, 21])
    func socketFamiliesOfNoSandboxAreRefused(family: Int) throws {
        let script = """
            import socket
            for make in (lambda: socket.socket(\(family), socket.SOCK_DGRAM), lambda: socket.socketpair(\(family))):
                try: make(); print("made")
                except OSError as e: print(e.errno)
            """
        #expect(try run(["python3", "-c", script]).output == "97\n97\n")  // EAFNOSUPPORT
    }

    @Test func packetSocketsWouldWorkWithoutTheFilter() throws {
        let descriptor = socket(AF_PACKET, CInt(SOCK_RAW.rawValue), 0)
        #expect(descriptor >= 0)
        close(descriptor)
    }

    @Test func socketFamiliesOfASandboxWork() throws {
        let script = """
            import socket
            for f in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK): socket.socket(f, socket.SOCK_DGRAM)
            socket.socketpair(socket.AF_UNIX); print("made")
            """
        #expect(try run(["python3", "-c", script]).output == "made\n")
    }

    @Test func rawSocketsNeedACapabilityThatIsGone() throws {
        let script = "import socket\ntry: socket.socket(2, 3, 1)\nexcept OSError as e: print(e.errno)"
        #expect(try run(["python3", "-c", script]).output == "1\n")
    }

    /// Each call with arguments that fail in another way, or do nothing, where it is allowed.
    @Test(arguments: [
        ("io_uring_setup", "1, 0", ENOSYS), ("io_uring_enter", "-1, 0, 0, 0", ENOSYS),
        ("io_uring_register", "-1, 0, 0, 0", ENOSYS), ("keyctl", "0, -3, 0", EPERM),
        ("add_key", "0, 0, 0, 0, 0", EPERM),
        ("request_key", "0, 0, 0, 0", EPERM), ("bpf", "-1, 0, 0", EPERM), ("perf_event_open", "0, 0, 0, 0, 0", EPERM),
        ("userfaultfd", "1", EPERM), ("open_by_handle_at", "-1, 0, 0", EPERM), ("init_module", "0, 0, 0", EPERM),
        ("reboot", "0, 0, 0, 0", EPERM),
    ])
    func systemCallsAreRefused(name: String, arguments: String, error: CInt) throws {
        let script = """
            import ctypes, platform
            x86 = {'io_uring_setup': 425, 'io_uring_enter': 426, 'io_uring_register': 427, 'keyctl': 250, 'add_key': 248,
                'request_key': 249, 'bpf': 321, 'perf_event_open': 298, 'userfaultfd': 323, 'open_by_handle_at': 304,
                'init_module': 175, 'reboot': 169}
            arm = {'io_uring_setup': 425, 'io_uring_enter': 426, 'io_uring_register': 427, 'keyctl': 219, 'add_key': 217,
                'request_key': 218, 'bpf': 280, 'perf_event_open': 241, 'userfaultfd': 282, 'open_by_handle_at': 265,
                'init_module': 105, 'reboot': 142}
            number = (x86 if platform.machine() == 'x86_64' else arm)['\(name)']
            libc = ctypes.CDLL(None, use_errno=True)
            print(libc.syscall(number, \(arguments)), ctypes.get_errno())
            """
        #expect(try run(["python3", "-c", script]).output == "-1 \(error)\n")
    }

    @Test func typingIntoTheTerminalIsRefused() throws {
        // Without the filter these fail with ENOTTY: standard input is no terminal here.
        let script = """
            import fcntl
            for request in (0x5412, 0x541C, 0x5412 | 1 << 40):
                try: fcntl.ioctl(0, request & 0xffffffff, b'x'); print("done")
                except OSError as e: print(e.errno)
            """
        #expect(try run(["python3", "-c", script]).output == "1\n1\n1\n")
    }

    #if arch(x86_64)
        @Test func callsOfA32BitProgramEndIt() throws {
            // mov eax, 20 (getpid); int 0x80; ret
            let script = """
                import ctypes, mmap
                page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
                page.write(bytes.fromhex('b814000000cd80c3'))
                print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))())
                """
            #expect(try run(["python3", "-c", script]).status == .signalled(SIGSYS))
        }

        @Test func callsOfTheX32TableAreUnknown() throws {
            let script = """
                import ctypes
                libc = ctypes.CDLL(None, use_errno=True)
                print(libc.syscall(0x40000000 | 41, 40, 1, 0), ctypes.get_errno())
                """
            #expect(try run(["python3", "-c", script]).output == "-1 38\n")
        }
    #endif

    @Test func userNamespacesCanBeMade() throws {
        #expect(try sh("unshare -Ur id -u").output == "0\n")
        let build =
            "mount -t tmpfs t /mnt && mkdir /mnt/old && mount --bind /usr /mnt/old && ls /mnt/old | grep -c '^bin$'"
        #expect(try sh("unshare -Urmpf sh -c \"\(build)\"").output == "1\n")
    }

    @Test func userNamespacesGainNothing() throws {
        let network = try SandboxNetwork.make()
        let script = """
            ip link show eth0 | grep -c UP
            unshare -Ur ip link set eth0 down && echo down
            unshare -Ur ip addr add 10.0.0.1/8 dev eth0 && echo added
            unshare -Ur sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward' && echo written
            unshare -Ur python3 -c 'import socket; socket.socket(40, 1)' && echo vsock
            unshare -Ur nsenter -t 1 -n true && echo entered
            unshare -Urn python3 -c 'import socket; socket.socket(17, 3, 0)' && echo packet
            """
        let outcome = try run(["sh", "-c", script]) { $0.networkNamespace = network.namespace.descriptor }
        #expect(outcome.output == "1\n")
    }

    @Test func itsInitCannotBeTouched() throws {
        let script = """
            cat /proc/1/environ && echo read
            readlink /proc/1/fd/3 && echo link; cat /proc/1/fd/0 && echo opened; ls /proc/1/cwd/ && echo cwd
            head -c1 /proc/1/mem && echo mem
            nsenter -t 1 -m true && echo entered
            kill -STOP 1; kill -KILL 1
            python3 -c 'import os; os.pidfd_open(1); import ctypes; l = ctypes.CDLL(None); print(l.syscall(438, os.pidfd_open(1), 0, 0), l.ptrace(16, 1, 0, 0))'
            echo alive
            """
        let outcome = try sh(script)
        #expect(outcome.output == "-1 -1\nalive\n", "\(outcome.errors)")
    }

    @Test func noDeviceNodeCanBeMade() throws {
        #expect(try sh("mknod /tmp/sandgate-test-\(getpid()) b 8 0 && echo made").output == "")
    }

    @Test func setUserIDProgramsGiveNothing() throws {
        #expect(
            try sh("setpriv --reuid 65534 --clear-groups grep CapEff /proc/self/status").output
                == "CapEff:\t0000000000000000\n"
        )
    }

    @Test func theSupervisorProtectsItself() async {
        await #expect(processExitsWith: .success) {
            #expect(throws: Never.self) { try Supervisor.protect() }
        }
    }
}
