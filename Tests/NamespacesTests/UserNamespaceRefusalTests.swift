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

    @Test func whatIsNotKnownIsNotGuessed() {
        #expect(UserNamespaceRefusal.cause(ENOMEM) { _ in nil } == "")
    }
}
