import FilePrimitives
import Glibc
import Testing

@Suite struct SystemStringTests {
    @Test func bytesStayWhatTheyAre() {
        let odd = SystemString(bytes: [0x61, 0xFF])
        #expect("/\(odd)/\(7)\("x")" as SystemString == SystemString(bytes: [0x2F, 0x61, 0xFF, 0x2F, 0x37, 0x78]))
        #expect(SystemString(cString: odd.cString) == odd)
        #expect("\(odd)" as String == "a\u{FFFD}")
        #expect(odd.cString == [0x61, -1, 0])
    }

    /// To a `String` both are equal, and to the kernel two names.
    @Test func codePointsCount() {
        #expect("caf\u{E9}" as SystemString != "cafe\u{301}")
        #expect(Set<SystemString>(["caf\u{E9}", "cafe\u{301}"]).count == 2)
    }

    @Test func whatCombinesWithASlashHidesNone() {
        #expect(("/run/\u{301}x" as SystemString).isBelow("/run"))
        #expect(("/run/\u{301}x" as SystemString).components == ["run", "\u{301}x"])
        #expect(("/run/\u{301}" as SystemString).hasPrefix("/run/"))
    }

    @Test(
        arguments: [
            ("/run", "/run", true), ("/run/x", "/run", true), ("/runx", "/run", false), ("/", "/run", false),
            ("/run", "/", true), ("/", "/", true), ("/run", "/run/x", false),
        ] as [(SystemString, SystemString, Bool)]
    )
    func whatLiesBelow(path: SystemString, directory: SystemString, isBelow: Bool) {
        #expect(path.isBelow(directory) == isBelow)
    }

    @Test func namesOfVariables() {
        #expect(("NAME=a=b" as SystemString).variableName == "NAME")
        #expect(("NAME=\u{301}" as SystemString).variableName == "NAME")
        #expect(("NAME" as SystemString).variableName == "NAME")
    }

    @Test func partsOfPaths() {
        #expect(("//a//b/" as SystemString).components == ["a", "b"])
        #expect(("/a/b" as SystemString).parent == "/a")
        #expect(("/a" as SystemString).parent == "")
        #expect(("a" as SystemString).parent == nil)
        #expect(("me/.ssh" as SystemString).hasSuffix("/.ssh"))
        #expect(!("ssh" as SystemString).hasSuffix("/.ssh"))
        #expect(("/a" as SystemString).dropFirst(1) == "a")
        #expect(["b", "a\u{FF}", "a"].map { SystemString($0) }.sorted() == ["a", "a\u{FF}", "b"])
    }
}
