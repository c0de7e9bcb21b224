import Foundation
import Testing

@testable import Confinement

struct PrivilegeTableTests {
    @Test func whatIsKept() {
        let kept = PrivilegeTable.Mode.allCases.map { mode in
            let table = PrivilegeTable(mode)
            let roles = table.roles.map { "\($0) \(table.most($0).names.joined(separator: "+"))" }
            return "\(mode): \(roles.joined(separator: "; "))"
        }
        #expect(
            kept == [
                "run: loop CAP_NET_ADMIN+CAP_SYS_RESOURCE; other ",
                "rootless: loop ; other ",
                """
                serve: loop CAP_NET_ADMIN+CAP_SYS_RESOURCE; keeper \
                CAP_DAC_OVERRIDE+CAP_NET_ADMIN+CAP_NET_RAW+CAP_SYS_PTRACE+CAP_SYS_ADMIN+CAP_SYS_RESOURCE; other \
                CAP_DAC_OVERRIDE+CAP_NET_BIND_SERVICE
                """,
                """
                sidecar: loop CAP_NET_ADMIN+CAP_SYS_RESOURCE; other CAP_DAC_OVERRIDE+CAP_NET_BIND_SERVICE
                """,
            ]
        )
    }

    @Test func whatIsNeededToBegin() {
        #expect(PrivilegeTable(.run).needed == [.setpcap, .netAdmin, .sysAdmin])
        #expect(PrivilegeTable(.rootless).needed == [])
        // What threads that carry traffic keep, they have of the one that starts them.
        for mode in [PrivilegeTable.Mode.serve, .sidecar] {
            #expect(PrivilegeTable(mode).most(.keeper).isSuperset(of: PrivilegeTable(mode).most(.loop)))
        }
        #expect(PrivilegeTable(.serve).needed == [.netAdmin, .netRaw, .sysPtrace, .sysAdmin])
        #expect(PrivilegeTable(.sidecar).needed == [.netAdmin, .netRaw])
    }

    @Test func everyGrantSaysWhatItIsFor() {
        for mode in PrivilegeTable.Mode.allCases {
            for grant in PrivilegeTable.Role.allCases.flatMap(PrivilegeTable(mode).grants) {
                #expect(grant.capability.names.count == 1 && grant.reason.count > 10)
            }
        }
    }

    @Test func namesAreTheKernels() {
        #expect(
            CapabilitySet(rawValue: 1 << 21 | 1 << 12 | 1).names == ["CAP_CHOWN", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"]
        )
        #expect(CapabilitySet(rawValue: 1 << 40).names == ["CAP_CHECKPOINT_RESTORE"])
        #expect(CapabilitySet(rawValue: 1 << 50).names == ["capability 50"])
    }
}

struct HeldPrivilegesTests {
    private static let good = """
        Name:\tsandgate-loop
        Uid:\t0\t0\t0\t0
        CapInh:\t0000000000000000
        CapPrm:\t0000000000001000
        CapEff:\t0000000000001000
        CapBnd:\t0000000000000000
        CapAmb:\t0000000000000000
        NoNewPrivs:\t1
        Seccomp:\t2
        Seccomp_filters:\t2

        """

    private func excess(
        _ replacing: String = "",
        with text: String = "",
        _ mode: PrivilegeTable.Mode = .serve
    ) -> [String] {
        let status = replacing.isEmpty ? Self.good : Self.good.replacingOccurrences(of: replacing, with: text)
        guard let held = HeldPrivileges(thread: 2, status: status) else { return ["malformed"] }
        return held.excess(over: PrivilegeTable(mode), as: held.role(in: 1, mode))
    }

    @Test func aThreadAsTheTableSays() {
        #expect(excess() == [])
    }

    @Test func whatIsMoreThanTheTableSays() {
        #expect(excess("CapEff:\t0000000000001000", with: "CapEff:\t0000000000201000") == ["holds CAP_SYS_ADMIN"])
        #expect(excess("CapPrm:\t0000000000001000", with: "CapPrm:\t0000000000003000") == ["may take CAP_NET_RAW"])
        #expect(
            excess("CapInh:\t0000000000000000", with: "CapInh:\t0000000000001000")
                == ["passes on (inheritable) CAP_NET_ADMIN"]
        )
        #expect(
            excess("CapAmb:\t0000000000000000", with: "CapAmb:\t0000000000000001") == ["passes on (ambient) CAP_CHOWN"]
        )
        #expect(excess("NoNewPrivs:\t1", with: "NoNewPrivs:\t0") == ["lacks no_new_privs"])
        #expect(excess("filters:\t2", with: "filters:\t1") == ["is under 1 system call filters instead of 2"])
        #expect(excess("Seccomp:\t2", with: "Seccomp:\t0") == ["is under 0 system call filters instead of 2"])
        // Of another role, by its name.
        #expect(excess("sandgate-loop", with: "NIO-ELT-0-#1") == ["holds CAP_NET_ADMIN"])
        // The keeper of a sidecar has ended.
        #expect(excess("sandgate-loop", with: "sandgate-keeper", .sidecar) == ["holds CAP_NET_ADMIN"])
        #expect(excess("CapEff:\t", with: "CapFoo:\t") == ["malformed"])
    }
}
