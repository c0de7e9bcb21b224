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

        deinit {
            for name in FileSystem.entries(in: path).map(\.name) { unlink("\(path)/\(name)") }
            rmdir(path)
        }

        func write(_ name: String) { close(open("\(path)/\(name)", O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)) }
        var names: [String] { FileSystem.entries(in: path).map(\.name) }
    }

    @Test func existingFilesAreListedByTheirRealPaths() throws {
        let home = try Home()
        home.write(".bashrc")
        home.write("dotfile")
        symlink("dotfile", "\(home.path)/.zshrc")
        let files = StartupFiles(homes: [home.path])
        #expect(files.existing == ["\(home.path)/.bashrc", "\(home.path)/dotfile"])
        #expect(files.setAside().isEmpty)
    }

    @Test func whatAppearedIsRenamed() throws {
        let home = try Home()
        let files = StartupFiles(homes: [home.path])
        home.write(".zshenv")
        home.write("work")
        let moved = files.setAside()
        #expect(moved.map(\.path) == ["\(home.path)/.zshenv"])
        #expect(home.names == [".zshenv.from-sandbox-\(getpid())", "work"])
        #expect(files.setAside().isEmpty)
    }

    @Test func replacedAndRemovedLinksAreBack() throws {
        let home = try Home()
        for name in [".bashrc", ".zshrc"] { symlink("dotfile", "\(home.path)/\(name)") }
        let files = StartupFiles(homes: [home.path])
        unlink("\(home.path)/.bashrc")
        unlink("\(home.path)/.zshrc")
        home.write(".zshrc")
        #expect(files.setAside().map(\.path) == ["\(home.path)/.zshrc"])
        #expect(FileSystem.destination(of: "\(home.path)/.bashrc") == "dotfile")
        #expect(FileSystem.destination(of: "\(home.path)/.zshrc") == "dotfile")
    }
}
