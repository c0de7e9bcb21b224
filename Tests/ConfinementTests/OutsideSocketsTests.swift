import CLinux
import FilePrimitives
import Foundation
import Glibc
import Namespaces
import Testing

@testable import Confinement

/// Sockets that are not where their programs bound them. Each test first gets through to the socket without confinement.
@Suite(.serialized, .enabled(if: isRoot))
struct OutsideSocketsTests {
    private static let refused = "[Errno 111] Connection refused\n"

    /// A directory that goes with the test, too deep for a glance at /tmp.
    private final class Place {
        let root: String
        let path: String

        init() throws {
            var template = Array("/tmp/sockets-XXXXXX".utf8CString)
            root = String(cString: try #require(mkdtemp(&template)))
            path = "\(root)/a/b/c"
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        }

        deinit { try? FileManager.default.removeItem(atPath: root) }
    }

    /// As ssh does for its shared connections.
    @Test func aSocketThatWasLinkedAfterwards() throws {
        let place = try Place()
        let server = try UnixServer("\(place.path)/cm.XXXXXX")
        #expect(link("\(place.path)/cm.XXXXXX", "\(place.path)/cm") == 0)
        unlink("\(place.path)/cm.XXXXXX")
        server.isNow(at: "\(place.path)/cm")
        #expect(server.answers())
        #expect(try run(["python3", "-c", server.client]).output == Self.refused)
    }

    @Test func aSocketThatWasMovedElsewhere() throws {
        let place = try Place()
        let server = try UnixServer("\(place.path)/before")
        #expect(mkdir("\(place.root)/other", 0o755) == 0)
        #expect(rename("\(place.path)/before", "\(place.root)/other/after") == 0)
        server.isNow(at: "\(place.root)/other/after")
        #expect(server.answers())
        #expect(try run(["python3", "-c", server.client]).output == Self.refused)
    }

    @Test func aSocketWithTwoNames() throws {
        let place = try Place()
        let server = try UnixServer("\(place.path)/one")
        #expect(mkdir("\(place.root)/other", 0o755) == 0)
        #expect(link("\(place.path)/one", "\(place.root)/other/two") == 0)
        for path in ["\(place.root)/other/two", "\(place.path)/one"] {
            server.isNow(at: path)
            #expect(server.answers())
            #expect(try run(["python3", "-c", server.client]).output == Self.refused)
        }
    }

    @Test func aSocketThatWasBoundThroughADescriptor() throws {
        let place = try Place()
        let directory = open(place.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        defer { close(directory) }
        let server = try UnixServer("/proc/self/fd/\(directory)/s")
        server.isNow(at: "\(place.path)/s")
        #expect(server.answers())
        #expect(try run(["python3", "-c", server.client]).output == Self.refused)
    }

    @Test func aSocketOfAnotherNetworkNamespace() throws {
        let place = try Place()
        let server = try NetworkNamespace.anonymous().enter { try UnixServer("\(place.path)/s") }
        #expect(server.answers())
        #expect(try run(["python3", "-c", server.client]).output == Self.refused)
    }

    @Test func aSocketInAFileSystemThatIsMountedTwice() async {
        await #expect(processExitsWith: .success) {
            let place = try Place()
            let server = try UnixServer("\(place.path)/s")
            try leaveMounts()
            #expect(mount("\(place.root)/a", "/mnt", nil, MountFlag.bind, nil) == 0)
            for path in ["/mnt/b/c/s", "\(place.path)/s"] {
                server.isNow(at: path)
                #expect(server.answers())
                #expect(try run(["python3", "-c", server.client]).output == OutsideSocketsTests.refused)
            }
        }
    }

    @Test func aSocketThatIsTooFarAwayIsToldOf() throws {
        let place = try Place()
        let server = try UnixServer("\(place.path)/s")
        let mounts = try MountTable.current()
        var search = SocketSearch(mounts: mounts, renewed: [])
        try search.walk([SystemString(place.root)], directories: 2)
        let known = try #require(try BoundUnixSocket.all().first { $0.name == "\(place.path)/s" })
        #expect(!search.hasPlaced(known) && !search.isComplete)
        try search.walkOn(from: [], directories: 2, until: .now)
        #expect(!search.hasPlaced(known) && !search.isComplete, "the time was over")
        try search.walkOn(from: [], directories: 2, until: .now + .seconds(60))
        #expect(search.hasPlaced(known) && search.isComplete)
        #expect(search.paths == ["\(place.path)/s"])
        withExtendedLifetime(server) {}
    }
}
