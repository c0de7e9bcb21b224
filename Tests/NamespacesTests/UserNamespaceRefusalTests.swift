import Glibc
import Testing

@testable import Namespaces

@Suite struct UserNamespaceRefusalTests {
    struct Machine: CustomTestStringConvertible {
        let error: CInt
        let settings: [String: String]
        let remedy: String

        var testDescription: String { remedy }
    }

    @Test(arguments: [
        Machine(
            error: ENOSPC,
            settings: ["user/max_user_namespaces": "0"],
            remedy: "sysctl user.max_user_namespaces=15000"
        ),
        Machine(error: ENOSPC, settings: ["user/max_user_namespaces": "90"], remedy: "the depth of 32 is reached"),
        Machine(error: ENOSYS, settings: [:], remedy: "CONFIG_USER_NS"),
        Machine(
            error: EPERM,
            settings: ["kernel/unprivileged_userns_clone": "0"],
            remedy: "sysctl kernel.unprivileged_userns_clone=1"
        ),
        Machine(
            error: EPERM,
            settings: ["kernel/unprivileged_userns_clone": "1", "kernel/apparmor_restrict_unprivileged_userns": "1"],
            remedy: "sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        ),
        Machine(
            error: EACCES,
            settings: ["kernel/apparmor_restrict_unprivileged_userns": "1"],
            remedy: "give sandgate one that has `userns,`"
        ),
    ])
    func causeAndRemedyAreNamed(_ machine: Machine) {
        let said = UserNamespaceRefusal.cause(machine.error) { machine.settings[$0] }
        #expect(said.contains(machine.remedy), "\(said)")
    }

    @Test func limitsAreNamedWithTheirRemedy() {
        func cause(_ error: CInt, _ settings: [String: String]) -> String {
            NamespaceLimit.cause(error, of: [.process, .mount]) { settings[$0] }
        }
        #expect(
            cause(ENOSPC, ["user/max_mnt_namespaces": "0", "user/max_pid_namespaces": "9"])
                == "user.max_mnt_namespaces forbids it: sudo sysctl user.max_mnt_namespaces=15000"
        )
        #expect(
            cause(ENOSPC, ["user/max_mnt_namespaces": "0", "user/max_pid_namespaces": "0"]).contains(
                "sysctl user.max_pid_namespaces=15000 user.max_mnt_namespaces=15000"
            )
        )
        #expect(cause(ENOSPC, [:]).contains("user.max_pid_namespaces or user.max_mnt_namespaces is reached"))
        #expect(cause(EPERM, ["user/max_mnt_namespaces": "0"]) == "")
    }

    @Test func rootIsNotToldToBecomeRoot() {
        #expect(UserNamespaceRefusal.cause(EPERM, isRoot: false) { _ in nil }.contains("as root") == true)
        #expect(UserNamespaceRefusal.cause(EPERM, isRoot: true) { _ in nil }.contains("as root") == false)
    }

    @Test func whatIsNotKnownIsNotGuessed() {
        #expect(UserNamespaceRefusal.cause(ENOMEM) { _ in nil } == "")
    }
}
