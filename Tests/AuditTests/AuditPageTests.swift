import Testing

@testable import Audit

@Suite struct AuditPageTests {
    private func lines(_ answer: String) -> [String] {
        AuditPage.lines(in: answer.utf8).map { String(decoding: $0, as: UTF8.self) }
    }

    @Test func `records are taken as they stand`() {
        let first = #"{"seq":1,"rule":{"index":0,"target":"a"},"detail":"}],{\"\\"}"#
        let second = #"{"seq":2,"host":"\\"}"#
        #expect(lines(#"{"items":[\#(first),\#(second)],"nextCursor":"2"}"#) == [first, second])
    }

    @Test(arguments: ["", "{}", #"{"items":[]}"#, #"{"items":[{"seq":1"#, #"{"items":"{{}}"}"#])
    func `no records`(_ answer: String) {
        #expect(lines(answer) == [])
    }
}
