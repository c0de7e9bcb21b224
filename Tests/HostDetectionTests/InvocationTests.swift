import EgressPolicy
import HostDetection
import NetPrimitives
import Testing

struct InvocationTests {
    @Test(
        arguments: [
            ("pip install x", Tool.pip, "pip"), ("pip3.11 download x", .pip, "pip3.11"),
            ("/venv/bin/pip install x", .pip, "pip"), ("python3 -m pip install x", .pip, "python3 -m pip"),
            ("python3.12 -I -m pip list", .pip, "python3.12 -m pip"), ("./python -m pip list", .pip, "pip"),
            ("npm ci", .npm, "npm"), ("npx cowsay", .npm, "npx"), ("/usr/bin/cargo build", .cargo, "cargo"),
            ("go build ./...", .go, "go"), ("mvn package", .maven, "mvn"), ("bundle install", .gem, "bundle"),
            ("apt-get update", .apt, "apt-get"), ("apt install x", .apt, "apt"), ("git pull", .git, "git"),
        ]
    )
    func `a tool is recognised by its program's name`(command: String, tool: Tool, program: String) throws {
        let invocation = try #require(Tool.Invocation(command: command.split(separator: " ").map(String.init)))
        #expect(invocation.tool == tool)
        // Never a path of the command's own: it is not to be executed outside of the sandbox.
        #expect(invocation.program.joined(separator: " ") == program)
    }

    @Test(
        arguments: [
            "", "pipx install x", "pip-tools", "python3 script.py -m pip", "python3 -m http.server", "python3 -m npm",
            "sh -c pip", "docker pull x", "gopher", "node", "python3 -m",
        ]
    )
    func `other programs are not`(command: String) {
        #expect(Tool.Invocation(command: command.split(separator: " ").map(String.init)) == nil)
    }

    @Test func `URLs on the command line count`() throws {
        let system = FakeSystem(
            programs: ["pip": "/usr/bin/pip"],
            outputs: [
                "pip config debug":
                    "user:\n  /pip.conf, exists: True\n    global.index-url: https://configured.example/\n"
            ]
        )
        let command = [
            "pip", "install", "--index-url", "https://u:secret@i.example/simple",
            "--extra-index-url=http://e.example:81/",
            "git+ssh://git@g.example/x", "name==1.0", "./x", "note: not a host",
        ]
        let detection = try #require(Tool.Invocation(command: command)).detect(on: system)
        #expect(detection.places == ["configured.example:443", "i.example:443", "e.example:81", "g.example:22"])
        #expect(detection.sources("i.example:443") == ["pip: on the command line"])
        #expect(!"\(detection)".contains("secret"))
    }

    @Test func `git's own rewriting of URLs applies`() throws {
        let system = FakeSystem(
            projectDirectory: nil,
            programs: ["git": "/usr/bin/git"],
            outputs: [
                "git ls-remote --get-url -- https://a.example/x": "https://mirror.example/x\n",
                "git ls-remote --get-url -- git@b.example:x/y": "git@b.example:x/y\n",
                "git ls-remote --get-url -- https://c.example/x": "/srv/mirrors/x\n",
            ]
        )
        let command = [
            "git", "clone", "https://a.example/x", "git@b.example:x/y", "https://c.example/x", "-m", "fix: y",
        ]
        let detection = try #require(Tool.Invocation(command: command)).detect(on: system)
        #expect(detection.places == ["mirror.example:443", "b.example:22"])
    }

    @Test(
        arguments: [
            ("https://a.example", "a.example:443"), ("HTTPS://A.Example./x", "a.example:443"),
            ("http://a.example:8080/x", "a.example:8080"), ("https://a.example:/x", "a.example:443"),
            ("https://u:p@h@a.example/x", "a.example:443"), ("https://192.0.2.7/x", "192.0.2.7:443"),
            ("https://[2001:db8::7]:8443/x", "2001:db8::7:8443"), ("https://a.example?x@b.example", "a.example:443"),
            ("https://a.example\\@b.example/", "a.example:443"), ("git+https://a.example/x.git@main", "a.example:443"),
            ("ssh://git@a.example:2222/x", "a.example:2222"), ("git://a.example/x", "a.example:9418"),
        ]
    )
    func `a URL's host and port`(url: String, place: String) {
        var detection = Detection()
        detection.add(url: url, source: "test")
        #expect(detection.places == [place])
    }

    @Test(
        arguments: [
            "https://", "https://*.example/", "https://a..example/", "https://a.example:0/", "https://a.example:99999/",
            "https://10.0.0.0/8", "https://[::1", "https://[2001:db8::1]x/", "ldap://a.example/", "a.example",
            "https:a.example",
        ]
    )
    func `what leads to no host that is understood is noted and not allowed`(url: String) {
        var detection = Detection()
        detection.add(url: url, source: "test")
        // The prefix length is a path here.
        #expect(detection.places.isEmpty || url.contains("10.0.0.0"))
        #expect(detection.notes.allSatisfy { !$0.contains(url) })
    }

    @Test func `a host's rule is as narrow as can be`() throws {
        var detection = Detection()
        detection.add(url: "https://a.example:8443/", source: "one")
        detection.add(url: "https://a.example:8443/x", source: "two")
        let host = try #require(detection.hosts.first)
        #expect(detection.hosts.count == 1)
        #expect(
            host.rule
                == Rule(
                    .allow,
                    try Target(parsing: "a.example"),
                    ports: [PortRange(8443)!],
                    transport: .tcp,
                    comment: "one; two"
                )
        )
    }
}
