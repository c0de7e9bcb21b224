import FilePrimitives
import Foundation
import Glibc
import Namespaces
import Testing

@testable import Confinement

/// Nodes that are laid out otherwise than this one. Each test is a process with a mount namespace of its own, in which
/// it rebuilds the node before the command is confined.
@Suite(.serialized, .enabled(if: isRoot))
struct ForeignNodeTests {
    @Test func resolvConfMayBeALinkIntoRun() async {
        await #expect(processExitsWith: .success) {
            try leaveMounts()
            try mountEmpty("/etc")
            try mountEmpty("/run")
            try FileManager.default.createDirectory(atPath: "/run/systemd/resolve", withIntermediateDirectories: true)
            #expect(symlink("../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf") == 0)
            // Dangling, as before the resolver has started, and then with the resolver's file.
            let script = "cat /etc/resolv.conf; ls /run/systemd /run/systemd/resolve; : >> /etc/resolv.conf"
            let expected = "nameserver 192.0.0.1\n/run/systemd:\nresolve\n\n/run/systemd/resolve:\nstub-resolv.conf\n"
            #expect(try sh(script).output == expected)
            try Data("nameserver 127.0.0.53\n".utf8).write(
                to: URL(fileURLWithPath: "/run/systemd/resolve/stub-resolv.conf")
            )
            let outcome = try sh(script)
            #expect(outcome.output == expected)
            #expect(outcome.errors.contains("Read-only file system"))
        }
    }

    @Test func resolvConfMayBeALinkElsewhere() async {
        await #expect(processExitsWith: .success) {
            try leaveMounts()
            try mountEmpty("/etc")
            try mountEmpty("/mnt")
            try Data("nameserver 127.0.0.53\n".utf8).write(to: URL(fileURLWithPath: "/mnt/resolv.conf"))
            #expect(symlink("/mnt/resolv.conf", "/etc/resolv.conf") == 0)
            #expect(try sh("cat /etc/resolv.conf").output == "nameserver 192.0.0.1\n")
            #expect(try String(contentsOfFile: "/etc/resolv.conf", encoding: .utf8) == "nameserver 127.0.0.53\n")
        }
    }

    @Test func aMissingResolvConfIsAnError() async {
        await #expect(processExitsWith: .success) {
            try leaveMounts()
            try mountEmpty("/etc")
            let error = #expect(throws: ConfinementError.self) { try sh("true") }
            #expect(
                error?.description == "cannot replace /etc/resolv.conf: it must exist to be replaced for the command: "
                    + "No such file or directory"
            )
        }
    }

    @Test func aSecondProcOfTheNodeIsCovered() async {
        await #expect(processExitsWith: .success) {
            try leaveMounts()
            try mountEmpty("/mnt")
            #expect(mkdir("/mnt/proc", 0o755) == 0 && mkdir("/mnt/sys", 0o755) == 0)
            #expect(mount("proc", "/mnt/proc", "proc", 0, nil) == 0)
            #expect(mount("sysfs", "/mnt/sys", "sysfs", 0, nil) == 0)
            #expect(FileManager.default.fileExists(atPath: "/mnt/proc/sys/kernel/core_pattern"))
            #expect(try sh("ls -A /mnt/proc /mnt/sys").output == "/mnt/proc:\n\n/mnt/sys:\n")
            #expect(try sh("unshare -Urmpf mount -t proc proc /mnt && echo mounted").output == "")
        }
    }

    @Test func whatOfRunIsKept() throws {
        let root = "/tmp/sandgate-test-run-\(getpid())"
        for name in ["data/deep", "dbus", "server", "nested/inner"] {
            try FileManager.default.createDirectory(atPath: "\(root)/\(name)", withIntermediateDirectories: true)
        }
        defer { try? FileManager.default.removeItem(atPath: root) }
        for name in ["utmp", "data/deep/file"] {
            #expect(FileManager.default.createFile(atPath: "\(root)/\(name)", contents: Data()))
        }
        #expect(chmod("\(root)/data/deep", 0o1777) == 0)
        #expect(symlink("data", "\(root)/alias") == 0)
        let sockets = try ["\(root)/top.sock", "\(root)/server/s", "\(root)/nested/inner/s"].map { try UnixServer($0) }
        #expect(mkfifo("\(root)/initctl", 0o600) == 0)
        let directory = try #require(RebuiltDirectory(SystemString(root)))
        #expect(
            directory.kept == [
                .init(path: "alias", kind: .link(to: "data")), .init(path: "data", kind: .directory(mode: 0o755)),
                .init(path: "data/deep", kind: .directory(mode: 0o1777)), .init(path: "data/deep/file", kind: .file),
                .init(path: "utmp", kind: .file),
            ]
        )
        #expect(directory.keeps("\(root)/data/deep/file"))
        #expect(!directory.keeps("\(root)/server/file"))
        #expect(!directory.keeps("/elsewhere/data"))
        #expect(RebuiltDirectory("\(root)/alias") == nil)
        withExtendedLifetime(sockets) {}
    }
}

/// Moves this thread into a mount namespace of its own, from which nothing gets back to the node.
func leaveMounts() throws {
    // <sched.h> declares unshare only for GNU sources, which Swift's module is not.
    typealias Unshare = @convention(c) (CInt) -> CInt
    guard let symbol = dlsym(nil, "unshare") else { throw ConfinementError("cannot find unshare", errno: ENOSYS) }
    let result = unsafeBitCast(symbol, to: Unshare.self)(0x0002_0000)  // CLONE_NEWNS
    guard result == 0, mount("none", "/", nil, MountFlag.recursive | MountFlag.private, nil) == 0 else {
        throw ConfinementError("cannot leave the node's mounts", errno: errno)
    }
}

private func mountEmpty(_ path: String) throws {
    guard mount("tmpfs", path, "tmpfs", 0, nil) == 0 else {
        throw ConfinementError("cannot mount \(path)", errno: errno)
    }
}
