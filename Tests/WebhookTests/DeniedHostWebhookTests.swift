import EgressCore
import EgressPolicy
import Logging
import NetPrimitives
import Testing

@testable import Webhook

@Suite struct DeniedHostWebhookTests {
    private func event(
        _ kind: AuditEvent.Kind,
        _ layer: AuditEvent.Layer,
        _ reason: Reason,
        host: String? = "evil.example"
    ) -> AuditEvent {
        var event = AuditEvent(kind, time: WallTime(microseconds: 0), sandbox: "sandbox")
        event.layer = layer
        event.verdict = Verdict(.deny, reason)
        event.host = host
        return event
    }

    @Test(arguments: [
        (AuditEvent.Kind.dnsDenied, AuditEvent.Layer.dns, Reason.default, true), (.dnsDenied, .dns, .rule, true),
        (.dnsDenied, .dns, .guardRange, true), (.dnsDenied, .dns, .upstreamFailed, false),
        (.dnsDenied, .dns, .paused, false), (.dnsAllowed, .dns, .rule, false),
        (.connectionDenied, .tlsSNI, .default, true), (.connectionDenied, .httpHost, .rule, true),
        (.connectionDenied, .connect, .default, true), (.connectionDenied, .tlsSNI, .nameAddressMismatch, false),
        (.connectionDenied, .ip, .default, false), (.connectionClosed, .tlsSNI, .default, false),
    ])
    func tellsOfNamesThatWereRefused(
        _ kind: AuditEvent.Kind,
        _ layer: AuditEvent.Layer,
        _ reason: Reason,
        isTold: Bool
    ) {
        let name = DeniedHostWebhook.hostname(in: event(kind, layer, reason))
        #expect(name == (isTold ? "evil.example" : nil))
    }

    @Test func namesAreWithoutTheLastDot() {
        #expect(DeniedHostWebhook.hostname(in: event(.dnsDenied, .dns, .default, host: "a.example.")) == "a.example")
        #expect(DeniedHostWebhook.hostname(in: event(.dnsDenied, .dns, .malformedName, host: ".")) == nil)
        #expect(DeniedHostWebhook.hostname(in: event(.dnsDenied, .dns, .malformedName, host: nil)) == nil)
    }

    @Test func namesAreEscaped() throws {
        let endpoint = try WebhookEndpoint(url: "http://a.example/")
        let webhook = try DeniedHostWebhook(endpoint, sandbox: "a\"b", log: Logger(label: "test")) { _, _ in -1 }
        let body = String(decoding: webhook.body("x\",\"y\\034\n/", at: WallTime(microseconds: 0)), as: UTF8.self)
        #expect(
            body == #"{"hostname":"x\",\"y\\034\n/","timestamp":"1970-01-01T00:00:00Z","#
                + #""source":"opensandbox-egress","sandboxId":"a\"b"}"#
        )
    }

    @Test(arguments: [
        ("http://a.example", "/", "a.example"), ("http://a.example?x=1", "/?x=1", "a.example"),
        ("https://a.example:443/b/c?d=/e", "/b/c?d=/e", "a.example"),
        ("https://a.example:80/b", "/b", "a.example:80"), ("http://[2001:db8::1]:8080/", "/", "[2001:db8::1]:8080"),
        ("http://192.0.2.7/b%20c", "/b%20c", "192.0.2.7"),
    ])
    func requestsAreMadeOfTheURL(_ url: String, _ target: String, _ host: String) throws {
        let endpoint = try WebhookEndpoint(url: url)
        #expect(endpoint.requestTarget == target)
        #expect(endpoint.hostField == host)
    }
}
