import EgressCore
import EgressPolicy
import Foundation
import NetPrimitives
import Testing
import WireFormat

@testable import Datapath

// D7
@Suite(.serialized) struct DNSClientTests {
    private func stage() throws -> ResolverStage {
        let stage = try ResolverStage(Policy(rules: [Rule(.allow, try Target(parsing: "*.example"))]))
        stage.server.answerAddresses("198.51.100.7")
        return stage
    }

    private static func framed(_ message: [UInt8]) -> [UInt8] {
        [UInt8(message.count >> 8), UInt8(message.count & 0xff)] + message
    }

    @Test func answersPipelinedQueries() throws {
        let identifiers = try stage().run {
            let socket = try BlockingSocket(.stream, to: DNSProgram.someServer)
            let queries = (0..<150).map { DNSProgram.query("n\($0 % 100).example", id: UInt16($0)) }
            try socket.send(queries.flatMap(Self.framed))
            return try (0..<150).map { _ in Int(try socket.receiveMessage()[1]) }
        }
        #expect(Set(identifiers) == Set(0..<150))
    }

    @Test func answersByteByByteAndOverIPv6() throws {
        let message = try stage().run {
            let socket = try BlockingSocket(.stream, to: DNSProgram.someServer6)
            for byte in Self.framed(DNSProgram.query("api.example")) {
                try socket.send([byte])
                usleep(2_000)
            }
            return try DNSMessage(decoding: try socket.receiveMessage())
        }
        #expect(message.answers.first?.address == IPAddress("198.51.100.7"))
    }

    @Test(
        arguments: [
            [0, 0],  // an empty message
            [0xff, 0xff],  // longer than any query
            [0, 3, 1, 2, 3],  // less than a header
            [0, 12, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0],  // a response
        ] as [[UInt8]]
    )
    func dropsClientsThatSendNoQueries(bytes: [UInt8]) throws {
        let ending = try stage().run {
            let socket = try BlockingSocket(.stream, to: DNSProgram.someServer)
            try socket.send(bytes)
            return try socket.receive(upTo: 1)
        }
        #expect(ending == [])
    }

    @Test func answersThoseWhoEndTheirSideFirst() throws {
        let (answer, ending) = try stage().run {
            let socket = try BlockingSocket(.stream, to: DNSProgram.someServer)
            try socket.send(Self.framed(DNSProgram.query("api.example")))
            socket.endOutput()
            return (try socket.receiveMessage(), try socket.receive(upTo: 1))
        }
        #expect(!answer.isEmpty)
        #expect(ending == [])
    }

    @Test func idleClientsDoNotKeepOthersOut() throws {
        let stage = try stage()
        let answer = try stage.run {
            let idle = try (0..<100).map { _ in try BlockingSocket(.stream, to: DNSProgram.someServer) }
            let socket = try BlockingSocket(.stream, to: DNSProgram.someServer)
            try socket.send(Self.framed(DNSProgram.query("api.example")))
            let answer = try socket.receiveMessage()
            // The oldest had to go.
            #expect(try idle[0].receive(upTo: 1) == [])
            return answer
        }
        #expect(!answer.isEmpty)
        #expect(stage.resolver.clientCount <= 64)
    }

    @Test func dropsIdleClients() throws {
        let seconds = try stage().run {
            let socket = try BlockingSocket(.stream, to: DNSProgram.someServer, seconds: 15)
            try socket.send([0])
            let start = Date()
            #expect(try socket.receive(upTo: 1) == [])
            return Date().timeIntervalSince(start)
        }
        #expect((9.5...14).contains(seconds))
    }
}
