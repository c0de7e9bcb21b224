import Foundation
import Glibc
import Namespaces

/// Runs a command line with sh and returns what it printed. The child starts in the network namespace of the calling
/// thread, so inside `enter` it sees the sandbox's network.
func shell(_ command: String) throws -> Data {
    guard let stream = popen(command, "re") else { throw NamespaceError("cannot run \(command)", errno: errno) }
    defer { pclose(stream) }
    var output = Data()
    var buffer = [UInt8](repeating: 0, count: 65536)
    while case let count = fread(&buffer, 1, buffer.count, stream), count > 0 { output += buffer[..<count] }
    return output
}

/// What `ip -j …` printed, as an array of objects.
func ip(_ arguments: String) throws -> [[String: Any]] {
    let output = try shell("ip -j \(arguments)")
    if output.isEmpty { return [] }
    return try JSONSerialization.jsonObject(with: output) as? [[String: Any]] ?? []
}
