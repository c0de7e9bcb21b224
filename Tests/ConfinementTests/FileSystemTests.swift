import FilePrimitives
import Foundation
import Glibc
import Namespaces
import Testing

@testable import Confinement

@Suite(.serialized, .enabled(if: isRoot))
struct FileSystemTests {
    @Test func resolvConfIsOurs() throws {
        let before = try Data(contentsOf: URL(fileURLWithPath: "/etc/resolv.conf"))
        let outcome = try sh("cat /etc/resolv.conf; echo x >> /etc/resolv.conf || echo refused")
        #expect(outcome.output == "nameserver 192.0.0.1\nrefused\n")
        #expect(try Data(contentsOf: URL(fileURLWithPath: "/etc/resolv.conf")) == before)
    }

    @Test(arguments: [
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper", "/sys/power/state",
    ])
    func theKernelsSettingsCannotBeWritten(path: String) throws {
        // Opened for writing without a byte written: the test must not do what it fears.
        #expect(try sh(": >> \(path) && echo opened").output == "")
    }

    @Test func aSecondProcCannotBeMountedInside() throws {
        let outcome = try sh("unshare -Urmpf sh -c 'mount -t proc proc /mnt && echo mounted'")
        #expect(outcome.output == "")
        #expect(outcome.errors.contains("mount"))
    }

    @Test func aWritableSysCannotBeMountedInside() throws {
        #expect(try sh("unshare -Urmn sh -c 'mount -t sysfs sysfs /mnt && echo mounted'").output == "")
    }

    @Test func whatCoversTheKernelsFilesCannotBeTakenAway() throws {
        #expect(try sh("umount /proc/sys && echo gone; umount -l /run && echo gone").output == "")
        let nested =
            "umount /proc/sys && echo gone; mount -o remount,rw /sys && echo gone; umount -l /proc && echo gone"
        #expect(try sh("unshare -Urm sh -c '\(nested)'").output == "")
    }

    @Test func sysShowsTheCommandsDevices() throws {
        #expect(try sh("ls /sys/class/net; test -d /sys/fs/cgroup && echo groups").output == "lo\ngroups\n")
        #expect(
            try sh("find /sys/fs/cgroup -name cgroup.procs -writable -exec sh -c ': >> {} && echo {}' ';'").output == ""
        )
    }

    @Test func aSocketOutsideRunIsCovered() throws {
        for directory in ["/tmp", "/var/tmp", "/root"] {
            let server = try UnixServer("\(directory)/sandgate-test-\(getpid()).sock")
            // Without confinement the same client gets through.
            #expect(server.answers())
            #expect(try run(["python3", "-c", server.client]).output == "[Errno 111] Connection refused\n")
        }
    }

    @Test func aSocketInRunIsNotThere() throws {
        let server = try UnixServer("/run/sandgate-test-\(getpid()).sock")
        #expect(server.answers())
        #expect(try run(["python3", "-c", server.client]).output == "[Errno 2] No such file or directory\n")
    }

    @Test func aDirectoryOfRunWithASocketIsNotThere() throws {
        let directory = "/run/sandgate-test-\(getpid())"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { rmdir(directory) }
        let server = try UnixServer("\(directory)/docker.sock")
        #expect(server.answers())
        #expect(try run(["python3", "-c", server.client]).output == "[Errno 2] No such file or directory\n")
    }

    @Test func whatAppearsInRunLaterIsNotThere() throws {
        let directory = "/run/sandgate-test-\(getpid())"
        try FileManager.default.createDirectory(atPath: "\(directory)/inner", withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        #expect(FileManager.default.createFile(atPath: "\(directory)/inner/file", contents: Data("kept\n".utf8)))
        let output = unnamedFile("stdout")
        defer { close(output) }
        let script = "cat \(directory)/inner/file; echo x > \(directory)/mine; cd \(directory); find . | sort"
        let network = try NetworkNamespace.anonymous()
        let process = try spawn(["sh", "-c", script], stdout: output, stderr: output, network: network)
        let server = try UnixServer("\(directory)/inner/late.sock")
        #expect(server.answers())
        try process.release()
        #expect(process.wait() == .exited(0))
        #expect(contents(of: output) == "kept\n.\n./inner\n./inner/file\n./mine\n")
        #expect(!FileManager.default.fileExists(atPath: "\(directory)/mine"))
    }

    @Test func anAbstractSocketIsNotThere() throws {
        let server = try UnixServer("\0sandgate-test-\(getpid())")
        #expect(server.answers())
        #expect(try run(["python3", "-c", server.client]).output == "[Errno 111] Connection refused\n")
    }

    @Test func aWorkingDirectoryBelowRunDoesNotLeadBack() throws {
        let directory = "/run/user/sandgate-test-\(getpid())"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { rmdir(directory) }
        let error = #expect(throws: ConfinementError.self) {
            try run(["true"]) { $0.workingDirectory = SystemString(directory) }
        }
        #expect(error?.errno == ENOENT)
    }

    @Test func protectedPathsAreReadOnly() throws {
        let path = "/tmp/sandgate-test-\(getpid()).audit"
        #expect(FileManager.default.createFile(atPath: path, contents: Data("a\n".utf8)))
        defer { unlink(path) }
        let script =
            "cat \(path); echo b >> \(path) && echo written; rm -f \(path) && echo removed; mv \(path) \(path).x && echo moved"
        #expect(try sh(script) { $0.readOnlyPaths = [SystemString(path)] }.output == "a\n")
        #expect(try String(contentsOfFile: path, encoding: .utf8) == "a\n")
    }

    @Test func theNodesMountsAreUntouched() throws {
        // Names of namespaces may come and go meanwhile: other tests make them.
        func mounts() throws -> [MountedFileSystem] {
            try MountTable.current().mounts.filter { $0.type != "nsfs" && $0.point != "/run/netns" }
        }
        // So may those of others on this machine, such as a container engine: what a run does, it does each time.
        let isUntouched = try (0..<5).contains { _ in
            let before = try mounts()
            #expect(try sh("mount | wc -l").status == .exited(0))
            return try mounts() == before
        }
        #expect(isUntouched)
    }

    @Test func sharedMemoryIsItsOwn() throws {
        let path = "/dev/shm/sandgate-test-\(getpid())"
        #expect(FileManager.default.createFile(atPath: path, contents: Data()))
        defer { unlink(path) }
        #expect(try sh("ls -A /dev/shm; touch /dev/shm/x && echo writable").output == "writable\n")
    }

    @Test func variablesThatNameSocketsAreTakenOut() throws {
        let outcome = try run(["env"]) {
            $0.environment = [
                "A=b", "SSH_AUTH_SOCK=/x", "DOCKER_HOST=unix:///x", "DBUS_SESSION_BUS_ADDRESS=y", "PATH=/usr/bin",
            ]
        }
        #expect(outcome.output == "A=b\nPATH=/usr/bin\n")
    }
}

@Suite struct MountTableTests {
    @Test func aLineIsRead() {
        let line = "36 35 98:0 /mnt1 /a\\040b rw,noatime master:1 shared:2 - ext4 /dev/root rw"
        let device = BoundUnixSocket.Device(major: 98, minor: 0)
        #expect(
            MountedFileSystem(line: line.utf8)
                == MountedFileSystem(identifier: 36, point: "/a b", type: "ext4", root: "/mnt1", device: device)
        )
        #expect(
            MountedFileSystem(line: "36 35 98:0 / / rw - proc".utf8)
                == MountedFileSystem(identifier: 36, point: "/", type: "proc", device: device)
        )
        #expect(MountedFileSystem(line: "garbage".utf8) == nil)
    }

    @Test func nothingInTheTableIsPassedOver() {
        let line = "36 35 98:0 / / rw - proc proc rw\n"
        #expect(MountTable(contents: Array((line + line).utf8))?.mounts.count == 2)
        #expect(MountTable(contents: Array((line + "garbage\n" + line).utf8)) == nil)
        #expect(MountTable(contents: []) == nil)
    }

    /// Names are what they are: not UTF-8, or with an octal number for what the table could not hold.
    @Test func namesAreBytes() {
        let line = Array("36 35 98:0 /# /a\\134\\012 rw - ext4 /dev/root rw".utf8).map { $0 == 0x23 ? 0xff : $0 }
        let mount = MountedFileSystem(line: line)
        #expect(mount?.root.bytes == [0x2f, 0xff])
        #expect(mount?.point == "/a\\\n")
    }

    @Test(
        arguments: [
            ("/", "/", "/a/b", "/a/b"), ("/", "/m", "/m/a", "/a"), ("/", "/m", "/m", "/"), ("/r", "/m", "/m/a", "/r/a"),
            ("/r", "/m", "/m", "/r"), ("/r", "/", "/", "/r"), ("/r", "/", "/a", "/r/a"),
            ("/f", "/m/file", "/m/file", "/f"),
        ] as [(SystemString, SystemString, SystemString, SystemString)]
    )
    func pathsLeadInAndOut(root: SystemString, point: SystemString, outside: SystemString, inside: SystemString) {
        let mount = MountedFileSystem(point: point, type: "tmpfs", root: root)
        #expect(mount.inside(outside) == inside)
        #expect(mount.outside(inside) == outside)
    }

    @Test func whatAMountDoesNotShow() {
        let mount = MountedFileSystem(point: "/m", type: "tmpfs", root: "/r")
        for inside in ["/", "/rest", "/other/r"] as [SystemString] { #expect(mount.outside(inside) == nil) }
    }

    @Test func theTableOfUnixSocketsIsRead() {
        let table = """
            Num       RefCount Protocol Flags    Type St Inode Path
            0000000000000000: 00000002 00000000 00010000 0001 01 21435 /run/a b.sock
            0000000000000000: 00000002 00000000 00010000 0001 01 21436 @abstract
            0000000000000000: 00000003 00000000 00000000 0001 03 21437
            """
        #expect(SocketTable.names(in: Array(table.utf8)) == ["/run/a b.sock"])
    }
}
