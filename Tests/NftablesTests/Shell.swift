import Foundation
import Glibc
import Namespaces

/// A command ended with another status than 0.
struct ShellFailure: Error, CustomStringConvertible {
    let command: String
    let output: String

    var description: String { "`\(command)` failed: \(output)" }
}

/// Runs a command line with sh and returns what it printed, standard error included. The child starts in the network
/// namespace of the calling thread.
@discardableResult
func shell(_ command: String) throws -> String {
    guard let stream = popen("exec 2>&1\n" + command, "re") else { throw ShellFailure(command: command, output: "") }
    var output = Data()
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while case let count = fread(&buffer, 1, buffer.count, stream), count > 0 { output += buffer[..<count] }
    let text = String(decoding: output, as: UTF8.self)
    guard pclose(stream) == 0 else { throw ShellFailure(command: command, output: text) }
    return text
}

/// Runs `body` in a network namespace of its own, where only loopback is, up.
func inNamespace<Result>(_ body: () throws -> Result) throws -> Result {
    try NetworkNamespace.anonymous().enter {
        try shell("ip link set lo up")
        return try body()
    }
}
