import FilePrimitives
import Foundation
import Glibc
import Namespaces
import Testing

@testable import Confinement

@Suite(.serialized, .enabled(if: isRoot))
struct ProcessTests {
    @Test func itSeesItsOwnProcessesAlone() throws {
        let script = "import os; print(sorted(int(n) for n in os.listdir('/proc') if n.isdigit()))"
        #expect(try run(["python3", "-c", script]).output == "[1, 2]\n")
        #expect(try sh("cat /proc/1/comm").output == "sandgate-init\n")
    }

    @Test func itIsInTheGivenNetworkNamespace() throws {
        #expect(try sh("ls /proc/self/net/dev && grep -c : /proc/net/dev").output == "/proc/self/net/dev\n1\n")
    }

    @Test func noDescriptorIsInherited() throws {
        let leak = open("/dev/null", O_RDONLY)  // without close-on-exec
        let high = fcntl(leak, F_DUPFD, 500)
        defer {
            close(leak)
            close(high)
        }
        let outcome = try run(["python3", "-c", "import os; print(sorted(os.listdir('/proc/self/fd')))"])
        #expect(outcome.output == "['0', '1', '2', '3']\n")  // 3 is the directory being listed
    }

    @Test func signalsArePassedOn() throws {
        for number in [SIGTERM, SIGINT, SIGUSR1, SIGHUP] {
            let files = (unnamedFile("stdout"), unnamedFile("stderr"))
            let network = try NetworkNamespace.anonymous()
            let script = "trap 'echo got; exit 7' \(number); echo ready; while :; do sleep 0.01; done"
            let process = try spawn(["sh", "-c", script], stdout: files.0, stderr: files.1, network: network)
            try process.release()
            #expect(eventually { contents(of: files.0) == "ready\n" })
            process.signal(number)
            #expect(process.wait() == .exited(7))
            #expect(contents(of: files.0) == "ready\ngot\n")
        }
    }

    @Test func itCannotSignalTheSupervisorThroughItsGroup() throws {
        // If the group were shared this would end the tests.
        let outcome = try sh("trap '' TERM; kill -TERM 0; kill -TERM -1; kill -KILL 1; echo alive")
        #expect(outcome.output == "alive\n")
    }

    @Test func descendantsEndWithTheCommand() throws {
        let marker = "31\(getpid())"
        let outcome = try sh("setsid sleep \(marker) & (sleep \(marker) &) ; exit 5")
        #expect(outcome.status == .exited(5))
        #expect(processes(running: ["sleep", marker]).isEmpty)
    }

    @Test func killEndsEverything() throws {
        let marker = "32\(getpid())"
        let null = open("/dev/null", O_RDWR | O_CLOEXEC)
        defer { close(null) }
        let network = try NetworkNamespace.anonymous()
        let process = try spawn(
            ["sh", "-c", "setsid sleep \(marker) & sleep \(marker)"],
            stdout: null,
            stderr: null,
            network: network
        )
        try process.release()
        #expect(eventually { processes(running: ["sleep", marker]).count == 2 })
        process.kill()
        #expect(process.reap() == .signalled(SIGKILL))
        #expect(processes(running: ["sleep", marker]).isEmpty)
    }

    @Test func aForgottenCommandIsKilled() throws {
        let marker = "33\(getpid())"
        let null = open("/dev/null", O_RDWR | O_CLOEXEC)
        defer { close(null) }
        let network = try NetworkNamespace.anonymous()
        do {
            let process = try spawn(["sleep", marker], stdout: null, stderr: null, network: network)
            try process.release()
            #expect(eventually { processes(running: ["sleep", marker]).count == 1 })
        }
        #expect(processes(running: ["sleep", marker]).isEmpty)
    }

    @Test func theDescriptorLimitIsSet() throws {
        #expect(try sh("ulimit -n") { $0.descriptorLimit = 512 }.output == "512\n")
    }
}

/// The processes of the node with these arguments.
func processes(running arguments: [String]) -> [String] {
    let wanted = Data((arguments.joined(separator: "\0") + "\0").utf8)
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return names.filter { FileManager.default.contents(atPath: "/proc/\($0)/cmdline") == wanted }
}
