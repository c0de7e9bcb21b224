import NetPrimitives
import Testing

@testable import Nftables

@Suite struct RefusedPacketTests {
    private static let header4: [UInt8] = [
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 203, 0, 113, 9,
    ]
    private static let header6: [UInt8] =
        [0x60, 0, 0, 0, 0, 20, 6, 64] + IPAddress("2001:db8::1")!.networkBytes + IPAddress("2001:db8::2")!.networkBytes
    private static let ports: [UInt8] = [0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 0]

    private func read(_ bytes: [UInt8]) -> RefusedPacket? {
        // A slice that does not start at 0, as those of a datagram do not.
        let slice = ([0xff, 0xff] + bytes)[2...]
        return RefusedPacket(packet: slice, uid: 7, prefix: "p")
    }

    @Test func readsIPv4() throws {
        let packet = try #require(read(Self.header4 + Self.ports))
        #expect(packet.family == .v4)
        #expect(packet.ipProtocol == 6)
        #expect(packet.source == IPAddress("192.0.2.1"))
        #expect(packet.destination == IPAddress("203.0.113.9"))
        #expect(packet.sourcePort == 40_000)
        #expect(packet.destinationPort == 443)
        #expect(packet.uid == 7)
        #expect(packet.prefix == "p")
    }

    @Test func readsPortsBehindOptions() throws {
        var header = Self.header4
        header[0] = 0x46
        #expect(try #require(read(header + [1, 1, 1, 1] + Self.ports)).destinationPort == 443)
        #expect(try #require(read(header + [1, 1, 1, 1])).destinationPort == nil)
    }

    @Test func laterFragmentsHaveNoPorts() throws {
        var header = Self.header4
        header[7] = 3
        #expect(try #require(read(header + Self.ports)).destinationPort == nil)
        let fragment: [UInt8] = [6, 0, 0, 8, 0, 0, 0, 0]
        var header6 = Self.header6
        header6[6] = 44
        let packet = try #require(read(header6 + fragment + Self.ports))
        #expect(packet.ipProtocol == 6)
        #expect(packet.destinationPort == nil)
        // The first fragment has them.
        #expect(try #require(read(header6 + [6, 0, 0, 1, 0, 0, 0, 0] + Self.ports)).destinationPort == 443)
    }

    @Test func readsIPv6BehindExtensionHeaders() throws {
        #expect(try #require(read(Self.header6 + Self.ports)).destinationPort == 443)
        var header = Self.header6
        header[6] = 0
        let hopByHop: [UInt8] = [60, 0, 1, 4, 0, 0, 0, 0]
        let options: [UInt8] = [51, 1] + [UInt8](repeating: 0, count: 14)
        let authentication: [UInt8] = [17, 4] + [UInt8](repeating: 0, count: 22)
        let packet = try #require(read(header + hopByHop + options + authentication + Self.ports))
        #expect(packet.ipProtocol == 17)
        #expect(packet.sourcePort == 40_000)
        #expect(packet.destinationPort == 443)
    }

    @Test func otherProtocolsHaveNoPorts() throws {
        var header = Self.header4
        header[9] = 1
        let packet = try #require(read(header + Self.ports))
        #expect(packet.ipProtocol == 1)
        #expect(packet.destinationPort == nil)
    }

    @Test func everyPrefixIsReadOrRefused() {
        var header = Self.header6
        header[6] = 0
        let packets = [
            Self.header4 + Self.ports,
            header + [43, 255, 0, 0, 0, 0, 0, 0] + Self.ports,
            header + [0, 0, 0, 0, 0, 0, 0, 0] + [6, 1, 0, 0, 0, 0, 0, 0] + Self.ports,
        ]
        for packet in packets {
            for length in 0...packet.count {
                let needed = packet[0] >> 4 == 4 ? 20 : 40
                #expect((read(Array(packet[..<length])) != nil) == (length >= needed))
            }
        }
    }

    @Test func nothingButIPIsRead() {
        #expect(read([]) == nil)
        #expect(read([UInt8](repeating: 0x50, count: 60)) == nil)
        var short = Self.header4
        short[0] = 0x44
        #expect(read(short + Self.ports) == nil)
    }

    /// Whatever the bytes, reading ends.
    @Test func randomBytes() {
        var random = SplitMix(state: 9)
        for _ in 0..<20_000 {
            var bytes = (0..<Int.random(in: 0...96, using: &random)).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
            if !bytes.isEmpty { bytes[0] = Bool.random(using: &random) ? 0x45 : 0x60 }
            if bytes.count > 6 { bytes[6] = [0, 43, 44, 51, 60, 135, 6].randomElement(using: &random)! }
            _ = read(bytes)
        }
    }
}
