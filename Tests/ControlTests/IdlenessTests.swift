import HTTPTypes
import NIOCore
import NIOHTTPTypes
import Testing

@testable import Control

/// When a connection is closed on which nothing is asked for.
@Suite struct IdlenessTests {
    private let head = HTTPRequestPart.head(HTTPRequest(method: .get, scheme: nil, authority: nil, path: "/policy"))

    @Test func lastsForSoManyTicks() {
        var idleness = Idleness(limit: 2)
        #expect([idleness.tick(), idleness.tick(), idleness.tick()] == [.wait, .wait, .close])
    }

    @Test func anyPartOfARequestBeginsItAnew() {
        for part in [head, .body(.init()), .end(nil)] {
            var idleness = Idleness(limit: 1)
            #expect(idleness.tick() == .wait)
            idleness.read(part)
            #expect(idleness.tick() == .wait)
        }
    }

    @Test func partsOfARequestAreNotEnough() {
        var idleness = Idleness(limit: 1)
        idleness.read(head)
        #expect([idleness.tick(), idleness.tick()] == [.wait, .close])
    }

    @Test func whoWaitsForAnAnswerIsNotIdle() {
        var idleness = Idleness(limit: 1)
        idleness.read(head)
        idleness.read(.end(nil))
        for _ in 0..<100 { #expect(idleness.tick() == .wait) }
        idleness.answered()
        #expect([idleness.tick(), idleness.tick()] == [.wait, .close])
    }

    @Test func answerBeforeTheEndOfItsRequest() {
        var idleness = Idleness(limit: 1)
        idleness.read(head)
        idleness.answered()
        #expect([idleness.tick(), idleness.tick()] == [.wait, .close])
        idleness.read(.end(nil))
        #expect([idleness.tick(), idleness.tick()] == [.wait, .close])
    }

    @Test func requestsInARow() {
        var idleness = Idleness(limit: 1)
        for _ in 0..<2 {
            idleness.read(head)
            idleness.read(.end(nil))
        }
        idleness.answered()
        for _ in 0..<100 { #expect(idleness.tick() == .wait) }
        idleness.answered()
        #expect([idleness.tick(), idleness.tick()] == [.wait, .close])
    }
}
