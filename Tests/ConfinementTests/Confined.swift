import FilePrimitives
import Foundation
import Glibc
import Namespaces

@testable import Confinement

/// Confinement takes root; the tests say so instead of failing.
let isRoot = geteuid() == 0

/// How a confined command ended and what it printed.
struct Outcome {
    var status: ExitStatus
    var output: String
    var errors: String
}

/// A configuration for tests: a fresh network namespace that nothing leads out of.
func configuration(_ arguments: [String], network: NetworkNamespace) -> ConfinedCommand.Configuration {
    var configuration = ConfinedCommand.Configuration(
        arguments: arguments.map { SystemString($0) },
        environment: [SystemString("PATH=\(CommandSearch.defaultPath)"), "HOME=/root", "LANG=C"],
        networkNamespace: network.descriptor,
        resolvConf: Array("nameserver 192.0.0.1\n".utf8)
    )
    configuration.workingDirectory = "/"
    return configuration
}

/// Starts a confined command with its output going to files.
func spawn(
    _ arguments: [String],
    stdout: CInt,
    stderr: CInt,
    network: NetworkNamespace,
    _ adjust: (inout ConfinedCommand.Configuration) -> Void = { _ in }
) throws -> ConfinedProcess {
    var configuration = configuration(arguments, network: network)
    adjust(&configuration)
    configuration.standardDescriptors.output = stdout
    configuration.standardDescriptors.error = stderr
    return try ConfinedCommand.spawn(configuration)
}

/// Runs a confined command to its end.
func run(
    _ arguments: [String],
    _ adjust: (inout ConfinedCommand.Configuration) -> Void = { _ in }
) throws -> Outcome {
    let files = (unnamedFile("stdout"), unnamedFile("stderr"))
    defer {
        close(files.0)
        close(files.1)
    }
    let network = try NetworkNamespace.anonymous()
    let process = try spawn(arguments, stdout: files.0, stderr: files.1, network: network, adjust)
    try process.release()
    let status = process.wait()
    return Outcome(status: status, output: contents(of: files.0), errors: contents(of: files.1))
}

/// Runs a shell script to its end.
func sh(_ script: String, _ adjust: (inout ConfinedCommand.Configuration) -> Void = { _ in }) throws -> Outcome {
    try run(["sh", "-c", script], adjust)
}

/// An unnamed file.
func unnamedFile(_ name: String) -> CInt {
    let path = "/tmp/sandgate-test-\(getpid())-\(name)-XXXXXX"
    var template = Array(path.utf8CString)
    let descriptor = mkstemp(&template)
    _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    unlink(template)
    return descriptor
}

/// All of a file.
func contents(of descriptor: CInt) -> String {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while case let count = pread(descriptor, &buffer, buffer.count, off_t(bytes.count)), count > 0 {
        bytes += buffer[..<count]
    }
    return String(decoding: bytes, as: UTF8.self)
}

/// Waits until `condition` holds, five seconds at most.
func eventually(_ condition: () -> Bool) -> Bool {
    for _ in 0..<500 {
        if condition() { return true }
        usleep(10_000)
    }
    return condition()
}
