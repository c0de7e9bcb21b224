import CLinux
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

    @Test func aSocketThatCanBeConnectedIsRefusedToACommandWithoutUnixSockets() throws {
        for type in [SOCK_STREAM, SOCK_DGRAM] {
            let descriptor = socket(AF_UNIX, CInt(type.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
            defer { close(descriptor) }
            let error = #expect(throws: ConfinementError.self) {
                try run(["true"]) {
                    $0.standardDescriptors.input = descriptor
                    $0.hasNoUnixSockets = true
                }
            }
            #expect(error?.operation.contains("connected elsewhere") == true)
        }
    }

    @Test func aSocketPairPasses() throws {
        var pair: [CInt] = [-1, -1]
        #expect(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0, &pair) == 0)
        defer { close(pair[1]) }
        #expect(try status(withInput: pair[0]) == "started\n")
    }
}
