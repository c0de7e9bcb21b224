import CLinux
import Foundation
import Glibc
import NetPrimitives
import Testing

@testable import Namespaces

@Suite(.serialized, .enabled(if: isRoot))
struct SandboxNetworkTests {
    @Test func ipShowsTheAddressesThatWerePlanned() throws {
        let network = try SandboxNetwork.make()
        let links = try network.namespace.enter { try ip("addr") }
        #expect(links.compactMap { $0["ifname"] as? String } == ["lo", "eth0"])
        let eth0 = links[1]
        #expect((eth0["flags"] as? [String]).map(Set.init)?.isSuperset(of: ["UP", "LOWER_UP", "NOARP"]) == true)
        let addresses = (eth0["addr_info"] as? [[String: Any]] ?? []).map {
            "\($0["local"] ?? "")/\($0["prefixlen"] ?? "")"
        }
        #expect(addresses == ["192.0.0.2/32", "fd73:616e:6467::2/128"])
        let tentative = (eth0["addr_info"] as? [[String: Any]] ?? []).contains { $0["tentative"] != nil }
        #expect(!tentative)
        #expect((links[0]["flags"] as? [String])?.contains("UP") == true)
    }

    @Test func everyDestinationHasARouteAndAKnownNeighbour() throws {
        let network = try SandboxNetwork.make()
        try network.namespace.enter {
            let route4 = try ip("route")
            #expect(route4.count == 1)
            #expect(route4[0]["dst"] as? String == "default")
            #expect(route4[0]["gateway"] as? String == "192.0.0.1")
            let default6 = try ip("-6 route show default")
            #expect(default6.count == 1)
            #expect(default6[0]["gateway"] as? String == "fd73:616e:6467::1")
            let neighbours = try ip("neigh")
            let known = Set(neighbours.compactMap { $0["dst"] as? String })
            #expect(known == ["192.0.0.1", "fd73:616e:6467::1"])
            for neighbour in neighbours { #expect(neighbour["state"] as? [String] == ["PERMANENT"]) }
        }
    }

    @Test func theDeadEndHasNoAddressAndNoRoute() throws {
        let network = try SandboxNetwork.make()
        try network.deadEnd.enter {
            let links = try ip("addr")
            #expect(links.compactMap { $0["ifname"] as? String } == ["lo", "node0"])
            for link in links { #expect((link["addr_info"] as? [Any])?.isEmpty == true) }
            #expect(try ip("route show table all").isEmpty)
            #expect(try ip("-6 route show table all").isEmpty)
            #expect(try shell("cat /proc/sys/net/ipv4/ip_forward") == Data("0\n".utf8))
        }
    }

    @Test func theNodesNamespaceIsUntouched() throws {
        let state = "ip -j link; ip -j addr; ip -j route; sysctl -a 2>/dev/null | grep forwarding"
        // Somebody else may change the node meanwhile; then look again.
        let isUntouched = try (0..<5).contains { _ in
            let before = try shell(state)
            let network = try SandboxNetwork.make()
            defer { withExtendedLifetime(network) {} }
            return try shell(state) == before
        }
        #expect(isUntouched)
        let network = try SandboxNetwork.make()
        let links = try shell("ip link")
        #expect(links.range(of: Data("\(SandboxNetwork.Plan.hardware)".utf8)) == nil)
        #expect(links.range(of: Data("\(SandboxNetwork.Plan.deadEndHardware)".utf8)) == nil)
        withExtendedLifetime(network) {}
    }

    @Test func whatIsSentInsideNeverAppearsOutside() throws {
        let network = try SandboxNetwork.make()
        let capture = try Capture()
        let inside = "sandgate-inside-\(getpid())"
        let outside = "sandgate-outside-\(getpid())"
        try network.namespace.enter {
            for target in ["198.51.100.7", "2001:db8::7", "192.0.0.1", "fd73:616e:6467::1"] {
                #expect(send(inside, to: target) == nil)
            }
        }
        // The same from the node: the capture would have seen it.
        #expect(send(outside, to: "127.0.0.1") == nil)
        #expect(capture.saw(outside))
        #expect(!capture.saw(inside))
        // They did leave the sandbox's device, and ended there.
        let received = try network.deadEnd.enter { try ip("-s link show node0") }
        let statistics = received[0]["stats64"] as? [String: [String: Any]]
        #expect((statistics?["rx"]?["packets"] as? Int ?? 0) >= 4)
        #expect(statistics?["tx"]?["packets"] as? Int == 0)
    }

    @Test func theSandboxSendsNothingByItself() throws {
        let network = try SandboxNetwork.make()
        usleep(1_500_000)
        let received = try network.deadEnd.enter { try ip("-s link show node0") }
        let statistics = received[0]["stats64"] as? [String: [String: Any]]
        #expect(statistics?["rx"]?["packets"] as? Int == 0)
    }

    @Test func bothNamespacesEndWithTheirDescriptors() throws {
        let identifiers: [UInt64]
        do {
            let network = try SandboxNetwork.make()
            identifiers = [network.namespace.identifier, network.deadEnd.identifier]
            #expect(try holders(of: identifiers) > 0)
        }
        #expect(try holders(of: identifiers) == 0)
    }

    /// How many descriptors of this process lead to one of the namespaces.
    private func holders(of identifiers: [UInt64]) throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").filter { name in
            let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(name)")
            return identifiers.contains { target == "net:[\($0)]" }
        }.count
    }
}

/// Sends a datagram to port 9 of an address; `nil`, or the error number.
private func send(_ text: String, to target: String) -> CInt? {
    var hints = addrinfo()
    hints.ai_flags = AI_NUMERICHOST
    hints.ai_socktype = Int32(SOCK_DGRAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(target, "9", &hints, &list) == 0, let entry = list else { return EINVAL }
    defer { freeaddrinfo(list) }
    let descriptor = socket(entry.pointee.ai_family, Int32(SOCK_DGRAM.rawValue), 0)
    defer { close(descriptor) }
    let sent = sendto(descriptor, text, text.utf8.count, 0, entry.pointee.ai_addr, entry.pointee.ai_addrlen)
    return sent == text.utf8.count ? nil : errno
}

/// Every frame on every device of the node's namespace.
private final class Capture {
    private let descriptor: CInt
    private var frames: [[UInt8]] = []

    init() throws {
        descriptor = socket(AF_PACKET, Int32(SOCK_RAW.rawValue), Int32(UInt16(3).bigEndian))
        guard descriptor >= 0 else { throw NamespaceError("cannot capture", errno: errno) }
    }

    deinit { close(descriptor) }

    func saw(_ text: String) -> Bool {
        var buffer = [UInt8](repeating: 0, count: 65536)
        while case let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT)), count > 0 {
            frames.append(Array(buffer[..<count]))
        }
        return frames.contains { Data($0).range(of: Data(text.utf8)) != nil }
    }
}
