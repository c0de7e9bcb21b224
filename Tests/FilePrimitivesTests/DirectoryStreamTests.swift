import FilePrimitives
import Foundation
import Glibc
import Testing

@Suite struct DirectoryStreamTests {
    /// A directory that goes with the test.
    private final class Place {
        let path: String

        init() throws {
            var template = Array("/tmp/directory-stream-XXXXXX".utf8CString)
            path = String(cString: try #require(mkdtemp(&template)))
        }

        deinit { try? FileManager.default.removeItem(atPath: path) }
    }

    @Test func everyKindOfEntry() throws {
        let place = try Place()
        #expect(FileManager.default.createFile(atPath: "\(place.path)/file", contents: nil))
        #expect(mkdir("\(place.path)/directory", 0o700) == 0)
        #expect(symlink("nowhere", "\(place.path)/link") == 0)
        #expect(mkfifo("\(place.path)/pipe", 0o600) == 0)
        var kinds: [SystemString: FileKind] = [:]
        var stream = try DirectoryStream(SystemString(place.path))
        while let entry = try stream.next() { kinds[entry.name] = entry.kind }
        #expect(kinds == ["file": .file, "directory": .directory, "link": .link, "pipe": .other])
        #expect(try DirectoryStream.names(in: place.path) == ["directory", "file", "link", "pipe"])
    }

    @Test func aNameThatIsNoText() throws {
        let place = try Place()
        let path = Array(place.path.utf8) + Array("/a".utf8) + [0xFF, 0]
        let file = path.withUnsafeBytes { open($0.baseAddress!.assumingMemoryBound(to: CChar.self), O_CREAT, 0o600) }
        close(file)
        var stream = try DirectoryStream(SystemString(place.path))
        let entry = try #require(try stream.next())
        #expect(entry.name.bytes == [0x61, 0xFF])
        #expect(try stream.next() == nil)
    }

    @Test func anEmptyDirectoryEnds() throws {
        let place = try Place()
        // An error from before is none of the list's.
        errno = EIO
        var stream = try DirectoryStream(SystemString(place.path))
        #expect(try stream.next() == nil)
    }

    @Test func whatCannotBeOpened() {
        #expect(throws: DirectoryStream.Failure.self) { try DirectoryStream.names(in: "/nowhere") }
        #expect(throws: DirectoryStream.Failure.self) { try DirectoryStream.names(in: "/dev/null") }
    }

    /// The kernel's error in the middle of a list is not its end: here the descriptor leads to no directory any more.
    @Test func anErrorIsNotTheEnd() throws {
        let place = try Place()
        let descriptor = open(place.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        var stream = try DirectoryStream(taking: descriptor)
        let null = open("/dev/null", O_RDONLY | O_CLOEXEC)
        #expect(dup2(null, descriptor) == descriptor)
        close(null)
        do {
            _ = try stream.next()
            Issue.record("an error was taken for the end")
        } catch {
            #expect(error.errno == ENOTDIR)
        }
    }
}
