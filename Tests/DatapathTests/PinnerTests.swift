import EgressPolicy
import Foundation
import NetPrimitives
import Reactor
import Testing

@testable import Datapath
@testable import EgressCore
@testable import Nftables

@Suite(.serialized) struct PinnerTests {
    private static let first = IPAddress("198.51.100.7")!
    private static let second = IPAddress("198.51.100.8")!
    private static let sixth = IPAddress("2001:db8:1::7")!

    private func request(_ name: String, _ addresses: IPAddress..., ttl: UInt32 = 300) throws -> Pinner.Request {
        Pinner.Request(addresses: addresses, name: try DomainName(name), ttl: ttl)
    }

    private func pinner(_ stage: ResolverStage, _ limits: PinTable.Limits = .init()) -> Pinner {
        Pinner(kernel: stage.table, loop: stage.loop, latencies: LatencyMeter(), limits: limits)
    }

    private func pinned(_ stage: ResolverStage) throws -> [IPAddress: KernelPin] {
        Dictionary(uniqueKeysWithValues: try stage.table.pins().map { ($0.address, $0) })
    }

    @Test func pinsSeveralAnswersWithOneMessage() throws {
        let stage = try ResolverStage(Policy())
        let pinner = pinner(stage)
        let before = stage.table.netlink.commitCount
        let errors = pinner.pin([
            try request("a.example", Self.first), try request("b.example", Self.second, Self.sixth),
            try request("c.example"),
        ])
        #expect(errors.allSatisfy { $0 == nil } && errors.count == 3)
        #expect(stage.table.netlink.commitCount == before + 1)
        let pins = try pinned(stage)
        #expect(
            pins.mapValues { $0.name?.description } == [
                Self.first: "a.example", Self.second: "b.example", Self.sixth: "b.example",
            ]
        )
        #expect(pinner.table.addressCount == 3)
        // Nothing to tell the kernel.
        _ = pinner.pin([try request("a.example", Self.first)])
        #expect(stage.table.netlink.commitCount == before + 1)
        pinner.stop()
    }

    @Test(arguments: [[300, 7_200], [7_200, 300]] as [[UInt32]])
    func anAddressOfTwoNamesIsHeldForTheLongerTime(_ ttls: [UInt32]) throws {
        let stage = try ResolverStage(Policy())
        let pinner = pinner(stage)
        let errors = pinner.pin([
            try request("a.example", Self.first, ttl: ttls[0]), try request("b.example", Self.first, ttl: ttls[1]),
        ])
        #expect(errors.allSatisfy { $0 == nil })
        let seconds = try #require(try pinned(stage)[Self.first]).secondsLeft
        #expect((7_200 + 3_600 - 5...7_200 + 3_600).contains(seconds))
        let now = stage.loop.now
        #expect(pinner.table.freshness(of: Self.first, for: try DomainName("a.example"), at: now) == .fresh)
        #expect(pinner.table.freshness(of: Self.first, for: try DomainName("b.example"), at: now) == .fresh)
        pinner.stop()
    }

    @Test func oneWithoutRoomLeavesTheOthers() throws {
        let stage = try ResolverStage(Policy())
        var limits = PinTable.Limits()
        limits.maximumAddresses = 2
        let pinner = pinner(stage, limits)
        let many = (10..<13).map { IPAddress("198.51.100.\($0)")! }
        let errors = pinner.pin([
            try request("a.example", Self.first), .init(addresses: many, name: try DomainName("b.example"), ttl: 300),
            try request("c.example", Self.second),
        ])
        guard case (nil, .tooManyAddresses?, nil) = (errors[0], errors[1], errors[2]) else {
            Issue.record("\(errors)")
            return
        }
        #expect(Set(try pinned(stage).keys) == [Self.first, Self.second])
        pinner.stop()
    }

    @Test func moreThanOneMessageHolds() throws {
        let stage = try ResolverStage(Policy())
        let pinner = pinner(stage)
        let before = stage.table.netlink.commitCount
        let requests = try (0..<20).map { number in
            Pinner.Request(
                addresses: (0..<50).map { IPAddress("10.0.\(number).\($0)")! },
                name: try DomainName("n\(number).example"),
                ttl: 300
            )
        }
        #expect(pinner.pin(requests).allSatisfy { $0 == nil })
        #expect(stage.table.netlink.commitCount == before + 4)
        #expect(try pinned(stage).count == 1_000)
        pinner.stop()
    }

    @Test func whatTheKernelRefusesIsNotPinned() throws {
        let stage = try ResolverStage(Policy())
        let pinner = pinner(stage)
        try stage.table.delete()
        let errors = pinner.pin([try request("a.example", Self.first), try request("b.example", Self.second)])
        for error in errors {
            guard case .kernel(let text) = error else {
                Issue.record("\(errors)")
                continue
            }
            #expect(text.contains("pinned4"))
        }
        #expect(pinner.table.addressCount == 0)
        try stage.table.closeDoor()
    }
}
