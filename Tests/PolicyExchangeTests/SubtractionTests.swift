import NetPrimitives
import Testing

@testable import PolicyExchange

@Suite struct SubtractionTests {
    private func difference(_ block: String, _ holes: [String]) throws -> [String] {
        try IPPrefix(parsing: block).subtracting(holes.map { try IPPrefix(parsing: $0) }).map(\.description)
    }

    @Test func `blocks less blocks`() throws {
        #expect(try difference("192.0.2.0/24", []) == ["192.0.2.0/24"])
        #expect(try difference("192.0.2.0/24", ["192.0.2.0/24"]) == [])
        #expect(try difference("192.0.2.0/24", ["192.0.0.0/16"]) == [])
        #expect(try difference("192.0.2.0/24", ["198.51.100.0/24"]) == ["192.0.2.0/24"])
        #expect(
            try difference("10.0.0.0/8", ["10.96.0.0/12"]) == [
                "10.0.0.0/10", "10.64.0.0/11", "10.112.0.0/12", "10.128.0.0/9",
            ]
        )
        #expect(try difference("192.0.2.0/30", ["192.0.2.3", "192.0.2.2", "192.0.2.2/31"]) == ["192.0.2.0/31"])
        #expect(try difference("0.0.0.0/0", []) == ["0.0.0.0/0"])
        #expect(try difference("::/0", []) == ["::/0"])
        #expect(try difference("::/0", ["8000::/1"]) == ["::/1"])
        #expect(try difference("::/0", ["::/0"]) == [])
        #expect(try difference("0.0.0.0/0", ["255.255.255.255"]).count == 32)
        #expect(try difference("::/0", ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]).count == 128)
    }

    @Test func `every address is on one side`() throws {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<200 {
            let block = IPPrefix(IPAddress(v4: 0xc000_0200), length: 24)
            let holes = (0..<Int.random(in: 0...6, using: &generator)).map { _ in
                IPPrefix(
                    IPAddress(v4: 0xc000_0200 | UInt32.random(in: 0...255, using: &generator)),
                    length: .random(in: 24...32, using: &generator)
                )
            }
            let left = block.subtracting(holes)
            let isRight = (UInt32(0)...255).allSatisfy { low in
                let address = IPAddress(v4: 0xc000_0200 | low)
                return left.count { $0.contains(address) } == (holes.contains { $0.contains(address) } ? 0 : 1)
            }
            #expect(isRight, "\(holes) leave \(left)")
        }
    }
}
