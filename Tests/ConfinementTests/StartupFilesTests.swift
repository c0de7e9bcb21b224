import FilePrimitives
import Foundation
import Glibc
import Testing

@testable import Confinement

@Suite struct StartupFilesTests {
    /// A home directory that goes with the test.
    private final class Home {
        let path: String

        init() throws {
            var template = Array("/tmp/startup-XXXXXX".utf8CString)
            path = String(cString: try #require(mkdtemp(&template)))
        }

        deinit { try? FileManager.default.removeItem(atPath: path) }

        func write(_ name: String) { close(open("\(path)/\(name)", O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)) }
        func makeDirectories(_ names: String...) throws {
            for name in names {
                try FileManager.default.createDirectory(atPath: "\(path)/\(name)", withIntermediateDirectories: true)
            }
        }
        var names: [String] { FileSystem.entriesIfReadable(in: SystemString(path))?.map(\.name.description) ?? [] }
    }

    @Test func existingFilesAreListedByTheirRealPaths() throws {
        let home = try Home()
        home.write(".bashrc")
        home.write("dotfile")
        symlink("dotfile", "\(home.path)/.zshrc")
        let files = try StartupFiles(homes: [SystemString(home.path)])
        #expect(files.existing == ["\(home.path)/.bashrc", "\(home.path)/dotfile"])
        #expect(files.setAside().isEmpty)
    }

    @Test func whatAppearedIsRenamed() throws {
        let home = try Home()
        let files = try StartupFiles(homes: [SystemString(home.path)])
        home.write(".zshenv")
        home.write("work")
        let moved = files.setAside()
        #expect(moved.map(\.path) == ["\(home.path)/.zshenv"])
        #expect(home.names.count == 2 && home.names[0].hasPrefix(".zshenv.from-sandbox-") && home.names[1] == "work")
        #expect(moved.map(\.outcome) == [.renamed(to: "\(home.path)/\(home.names[0])")])
        #expect(files.setAside().isEmpty)
    }

    @Test func replacedAndRemovedLinksAreBack() throws {
        let home = try Home()
        for name in [".bashrc", ".zshrc"] { symlink("dotfile", "\(home.path)/\(name)") }
        let files = try StartupFiles(homes: [SystemString(home.path)])
        unlink("\(home.path)/.bashrc")
        unlink("\(home.path)/.zshrc")
        home.write(".zshrc")
        #expect(files.setAside().map(\.path) == ["\(home.path)/.zshrc"])
        #expect(FileSystem.destination(of: "\(home.path)/.bashrc") == "dotfile")
        #expect(FileSystem.destination(of: "\(home.path)/.zshrc") == "dotfile")
    }

    /// As those have it who keep their dotfiles in a repository: `.config` itself is a link.
    @Test func aReplacedLinkOnTheWayIsPutBack() throws {
        let home = try Home()
        try home.makeDirectories("dotfiles/config/fish")
        symlink("dotfiles/config", "\(home.path)/.config")
        let files = try StartupFiles(homes: [SystemString(home.path)])
        #expect(files.existing == ["\(home.path)/dotfiles/config/fish"])
        unlink("\(home.path)/.config")
        try home.makeDirectories(".config/autostart", "dotfiles/config/autostart")
        let moved = files.setAside().map(\.path)
        #expect(moved == ["\(home.path)/.config", "\(home.path)/dotfiles/config/autostart"])
        #expect(FileSystem.destination(of: "\(home.path)/.config") == "dotfiles/config")
        #expect(FileSystem.kind(of: "\(home.path)/.config/autostart") == nil)
    }

    @Test func aLinkInADirectoryIsFollowed() throws {
        let home = try Home()
        try home.makeDirectories(".ssh", "keys")
        home.write("keys/authorized")
        symlink("../keys/authorized", "\(home.path)/.ssh/authorized_keys")
        symlink("../keys/missing", "\(home.path)/.ssh/config")
        symlink("/usr/bin/env", "\(home.path)/.ssh/rc")
        let files = try StartupFiles(homes: [SystemString(home.path)])
        // As root, everything can be written.
        #expect(
            files.existing.filter { $0.hasPrefix(SystemString(home.path)) } == [
                "\(home.path)/.ssh", "\(home.path)/keys/authorized",
            ]
        )
        home.write("keys/missing")
        #expect(files.setAside().map(\.path) == ["\(home.path)/keys/missing"])
    }

    @Test func linksInACircleEnd() throws {
        let home = try Home()
        symlink(".zshrc", "\(home.path)/.bashrc")
        symlink(".bashrc", "\(home.path)/.zshrc")
        #expect(try StartupFiles(homes: [SystemString(home.path)]).existing == [])
    }

    @Test func aFileWithAnotherNameIsToldOf() throws {
        let home = try Home()
        home.write(".profile")
        home.write(".bashrc")
        #expect(link("\(home.path)/.profile", "\(home.path)/other") == 0)
        #expect(try StartupFiles(homes: [SystemString(home.path)]).withOtherNames == ["\(home.path)/.profile"])
    }

    /// A name that is taken is not used, and a directory that was closed is opened.
    @Test func whatAppearedCannotBeHeldInPlace() async {
        await #expect(processExitsWith: .success) {
            let home = try Home()
            #expect(chown(home.path, 61_234, 61_234) == 0)
            #expect(setgid(61_234) == 0 && setuid(61_234) == 0)
            let files = try StartupFiles(homes: [SystemString(home.path)])
            try home.makeDirectories(".config/autostart")
            #expect(chmod("\(home.path)/.config", 0) == 0)
            #expect(chmod(home.path, 0o500) == 0)
            #expect(files.setAside().map(\.path) == ["\(home.path)/.config/autostart"])
            #expect(FileSystem.kind(of: "\(home.path)/.config/autostart") == nil)
        }
    }

    @Test func variablesSayWhereElseToLook() throws {
        let home = try Home()
        try home.makeDirectories("xdg/sway", "zsh")
        home.write("zsh/.zshrc")
        let files = try StartupFiles(homes: [], configuration: "\(home.path)/xdg", zsh: "\(home.path)/zsh")
        #expect(files.existing == ["\(home.path)/xdg/sway", "\(home.path)/zsh/.zshrc"])
    }
}
