import FilePrimitives
import Foundation
import Glibc
import Namespaces
import Testing

@testable import Confinement

@Suite(.serialized, .enabled(if: isRoot))
struct ExitStatusTests {
    @Test(arguments: [0, 1, 42, 125, 126, 127, 255] as [CInt])
    func theCommandsStatusIsKept(status: CInt) throws {
        #expect(try sh("exit \(status)").status == .exited(status))
    }

    @Test(arguments: [SIGTERM, SIGKILL, SIGSEGV, SIGINT])
    func theSignalThatEndedItIsKept(number: CInt) throws {
        let outcome = try run(["python3", "-c", "import os; os.kill(os.getpid(), \(number))"])
        #expect(outcome.status == .signalled(number))
        #expect(outcome.status.code == 128 + number)
    }

    @Test func aMissingCommandIs127() throws {
        let outcome = try run(["no-such-command"])
        #expect(outcome.status == .exited(127))
        #expect(outcome.errors == "sandgate: cannot run no-such-command: No such file or directory\n")
        #expect(try run(["/no/such"]).status == .exited(127))
    }

    @Test func aFileThatCannotBeExecutedIs126() throws {
        let outcome = try run(["/etc/passwd"])
        #expect(outcome.status == .exited(126))
        #expect(outcome.errors == "sandgate: cannot run /etc/passwd: Permission denied\n")
        #expect(try run(["/etc"]).status == .exited(126))
    }

    @Test func aScriptWithoutInterpreterLineRunsWithSh() throws {
        let path = "/tmp/sandgate-test-script-\(getpid())"
        let isMade = FileManager.default.createFile(
            atPath: path,
            contents: Data("echo \"$0 $1\"; exit 3\n".utf8),
            attributes: [.posixPermissions: 0o755]
        )
        defer { unlink(path) }
        #expect(isMade)
        let outcome = try run([path, "word"])
        #expect(outcome.output == "\(path) word\n")
        #expect(outcome.status == .exited(3))
    }

    @Test func thePathIsSearchedInOrder() {
        let found = CommandSearch.candidates(for: "x", environment: ["PATH=/a::/b"])
        #expect(found == ["/a/x", "x", "/b/x"])
        #expect(CommandSearch.candidates(for: "./x", environment: []) == ["./x"])
        #expect(CommandSearch.candidates(for: "", environment: []).isEmpty)
    }

    @Test func nothingRunsBeforeTheRelease() throws {
        let files = (unnamedFile("stdout"), unnamedFile("stderr"))
        let network = try NetworkNamespace.anonymous()
        let process = try spawn(["echo", "ran"], stdout: files.0, stderr: files.1, network: network)
        usleep(100_000)
        #expect(contents(of: files.0) == "")
        try process.release()
        #expect(process.wait() == .exited(0))
        #expect(contents(of: files.0) == "ran\n")
    }

    @Test func aMissingWorkingDirectoryIsNamed() {
        let error = #expect(throws: ConfinementError.self) {
            try run(["true"]) { $0.workingDirectory = "/no/such" }
        }
        #expect(error?.description == "cannot change to directory /no/such: No such file or directory")
    }

    @Test func aDescriptorThatIsNoNamespaceIsRefused() {
        let error = #expect(throws: ConfinementError.self) { try run(["true"]) { $0.networkNamespace = 0 } }
        #expect(error?.operation == "cannot enter the network namespace")
    }
}
