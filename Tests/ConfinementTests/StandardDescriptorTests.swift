import CLinux
import FilePrimitives
import Glibc
import Namespaces
import Testing

@testable import Confinement

@Suite(.serialized, .enabled(if: isRoot))
struct StandardDescriptorTests {
    private func status(withInput descriptor: CInt) throws -> String {
        defer { close(descriptor) }
        return try run(["sh", "-c", "echo started"]) { $0.standardDescriptors.input = descriptor }.output
    }

    @Test(arguments: [AF_INET, AF_INET6, AF_NETLINK])
    func aSocketThatLeadsOutIsRefused(family: CInt) throws {
        let type = family == AF_NETLINK ? SOCK_RAW : SOCK_STREAM
        let descriptor = socket(family, CInt(type.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        let error = #expect(throws: ConfinementError.self) { try status(withInput: descriptor) }
        #expect(error?.operation.contains("network socket on as standard input") == true)
    }

    @Test func aDirectoryIsRefused() throws {
        let error = #expect(throws: ConfinementError.self) {
            try status(withInput: open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC))
        }
        #expect(error?.operation.contains("directory on as standard input") == true)
    }

    @Test(arguments: [CInt(SOCK_STREAM.rawValue), CInt(SOCK_DGRAM.rawValue)])
    func aSocketThatCanBeConnectedIsRefused(type: CInt) throws {
        let descriptor = socket(AF_UNIX, type | CInt(SOCK_CLOEXEC.rawValue), 0)
        let error = #expect(throws: ConfinementError.self) { try status(withInput: descriptor) }
        #expect(error?.operation.contains("connected elsewhere on as standard input") == true)
    }

    @Test(arguments: ["/proc/self/ns/net", "/proc/self/ns/user", "/proc/self/oom_score_adj", "/sys/kernel/profiling"])
    func aFileOfTheKernelIsRefused(path: String) throws {
        let error = #expect(throws: ConfinementError.self) { try status(withInput: open(path, O_RDONLY | O_CLOEXEC)) }
        #expect(error?.operation.contains("a file of the kernel's on as standard input") == true)
    }

    @Test func whatIsNoFileIsRefused() throws {
        let descriptors = [epoll_create1(0), clinux_pidfd_open(getpid()), open("/dev/net/tun", O_RDWR | O_CLOEXEC)]
        for descriptor in descriptors where descriptor >= 0 {
            #expect(throws: ConfinementError.self) { try status(withInput: descriptor) }
        }
    }

    @Test func aFileThatIsReadOnlyIsRefused() throws {
        let directory = "/tmp/sandgate-test-\(getpid())"
        #expect(mkdir(directory, 0o755) == 0)
        defer {
            unlink("\(directory)/file")
            rmdir(directory)
        }
        for protected in ["\(directory)/file", directory] {
            let file = open("\(directory)/file", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
            defer { close(file) }
            let error = #expect(throws: ConfinementError.self) {
                try run(["true"]) {
                    $0.standardDescriptors.input = file
                    $0.readOnlyPaths = [SystemString(protected)]
                }
            }
            #expect(error?.operation.contains("the command could change it") == true)
        }
    }

    @Test(arguments: ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"])
    func aDeviceThatHoldsNothingPasses(path: String) throws {
        #expect(try status(withInput: open(path, O_RDONLY | O_CLOEXEC)) == "started\n")
    }

    @Test func aSocketPairPasses() throws {
        var pair: [CInt] = [-1, -1]
        #expect(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0, &pair) == 0)
        defer { close(pair[1]) }
        #expect(try status(withInput: pair[0]) == "started\n")
    }
}
