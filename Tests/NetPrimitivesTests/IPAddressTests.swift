import NetPrimitives
import Testing

@Test func parsesAddresses() { #expect(IPAddress("2001:db8::1")?.description == "2001:db8::1") }
