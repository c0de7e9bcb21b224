/// A decoder under test and what must hold of it: `check` traps when it does not.
struct FuzzTarget: Sendable {
    /// Its name on the command line, and of its seeds and its dictionary.
    let name: String
    /// Looks at one input.
    let check: @Sendable ([UInt8]) -> Void

    /// Every target.
    static let all = [
        dnsQuery, dnsAnswer, serviceBinding, clientHello, helloRetry, firstBytes, httpRequest, httpResponse,
        httpBody, httpAuthority, httpForwarding, socks, policyJSON, policyYAML, policyImport, createRequest, netlink,
        refusedPacket, auditLine, auditLog, auditChain, sandboxRecord, primitives,
    ]
}

/// Ends the process when `condition` does not hold, so that libFuzzer keeps the input. Unlike `assert`, in release
/// builds too.
func require(
    _ condition: Bool,
    _ message: @autoclosure () -> String,
    file: StaticString = #fileID,
    line: UInt = #line
) {
    if !condition { fatalError(message(), file: file, line: line) }
}
