import CLinux
import FilePrimitives
import Glibc
import NetPrimitives
import Testing

@testable import Namespaces

/// Making namespaces takes root; the tests say so instead of failing.
let isRoot = geteuid() == 0

@Suite(.enabled(if: isRoot))
struct NetworkNamespaceTests {
    @Test func anAnonymousNamespaceIsAnotherOne() throws {
        let here = try NetworkNamespace.current().identifier
        let made = try NetworkNamespace.anonymous()
        #expect(made.identifier != here)
        #expect(try made.enter { try NetworkNamespace.current().identifier } == made.identifier)
        #expect(try NetworkNamespace.current().identifier == here)
    }

    @Test func aSocketOpenedInsideStaysInside() throws {
        let made = try NetworkNamespace.anonymous()
        // Loopback is down in a new namespace, so a datagram to it has no way.
        let descriptor = try made.enter { socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0) }
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = UInt16(AF_INET)
        address.sin_port = UInt16(9).bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                sendto(descriptor, "x", 1, 0, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        #expect(result == -1)
        #expect(errno == ENETUNREACH)
    }

    @Test func errorsOfTheBodyComeOut() throws {
        struct Refusal: Error, Equatable {}
        let made = try NetworkNamespace.anonymous()
        #expect(throws: Refusal.self) { try made.enter { throw Refusal() } }
    }

    @Test func theDescriptorIsNotInherited() throws {
        let made = try NetworkNamespace.anonymous()
        #expect(fcntl(made.descriptor, F_GETFD) & FD_CLOEXEC != 0)
    }

    @Test func aMissingPathIsNamed() {
        let error = #expect(throws: NamespaceError.self) { try NetworkNamespace.open(path: "/run/netns/no-such") }
        #expect(error?.description == "cannot open namespace /run/netns/no-such: No such file or directory")
    }

    @Test func theKernelsExtendedReasonIsKept() throws {
        let made = try NetworkNamespace.anonymous()
        let error = #expect(throws: NamespaceError.self) {
            try made.enter {
                let lo = try Link(named: "lo")
                try lo.setUp()
                try lo.addDefaultRoute(via: IPAddress("fd00::1")!)
                try lo.addDefaultRoute(via: IPAddress("fd00::1")!)
            }
        }
        #expect(error?.errno != 0)
        #expect(error?.description.hasPrefix("cannot add a default route through fd00::1: ") == true)
    }

    @Test func theNodesAddressesHoldLoopback() throws {
        let addresses = try nodeAddresses()
        #expect(addresses.contains(IPAddress("127.0.0.1")!))
        #expect(addresses == addresses.sorted())
    }
}
