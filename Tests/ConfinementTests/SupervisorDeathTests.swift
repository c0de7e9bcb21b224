import Foundation
import Glibc
import Namespaces
import Testing

@testable import Confinement

@Suite(.serialized, .enabled(if: isRoot))
struct SupervisorDeathTests {
    /// The number of seconds by which the processes of one test are told from all others.
    private static let marker = "4198711"

    @Test func killingTheSupervisorKillsTheCommandAndItsDescendants() async {
        await #expect(processExitsWith: .signal(SIGKILL)) {
            let network = try SandboxNetwork.make()
            let script = "setsid sleep \(Self.marker) & (sleep \(Self.marker) &); exec sleep \(Self.marker)"
            let process = try ConfinedCommand.spawn(configuration(["sh", "-c", script], network: network.namespace))
            try process.release()
            precondition(eventually { processes(running: ["sleep", Self.marker]).count == 3 })
            kill(getpid(), SIGKILL)
            sleep(10)
        }
        #expect(eventually { processes(running: ["sleep", Self.marker]).isEmpty })
    }

    @Test func aSupervisorKilledBeforeTheReleaseLeavesNothing() async {
        await #expect(processExitsWith: .signal(SIGKILL)) {
            let network = try SandboxNetwork.make()
            let process = try ConfinedCommand.spawn(configuration(["sleep", Self.marker], network: network.namespace))
            withExtendedLifetime(process) {
                _ = kill(getpid(), SIGKILL)
                sleep(10)
            }
        }
        #expect(eventually { inits() == 0 })
    }

    /// How many confined inits there are on the node that no other test of this process could have started.
    private func inits() -> Int {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return names.filter { name in
            guard let status = try? String(contentsOfFile: "/proc/\(name)/status", encoding: .utf8) else {
                return false
            }
            return status.contains("Name:\tsandgate-init\n") && status.contains("PPid:\t1\n")
        }.count
    }
}
