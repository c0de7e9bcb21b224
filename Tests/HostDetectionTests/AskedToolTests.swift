import HostDetection
import Testing

/// Tools that report their configuration themselves; the texts are what they print.
struct AskedToolTests {
    private static let help = """
        Package Index Options:
          -i, --index-url <url>       Base URL of the Python Package Index (default
                                      https://index.example/simple). This should point to a
                                      repository compliant with PEP 503.
          --extra-index-url <url>     Extra URLs of package indexes.
        """

    private func pip(_ debug: String, help: String = Self.help) throws -> Detection {
        try Tool.pip.detect(
            on: FakeSystem(
                files: [
                    "/usr/lib/pip/_internal/models/index.py": """
                    PyPI = PackageIndex("https://index.example/", file_storage_domain="files.example")
                    TestPyPI = PackageIndex(
                        "https://test.index.example/", file_storage_domain="test-files.example"
                    )
                    """
                ],
                programs: ["pip": "/usr/bin/pip"],
                outputs: [
                    "pip config debug": debug, "pip install --help": help,
                    "pip --version": "pip 23.0 from /usr/lib/pip (python 3.11)\n",
                ]
            )
        )
    }

    @Test func `pip without configuration uses the default of its own help`() throws {
        let detection = try pip("env_var:\nenv:\nglobal:\n  /etc/pip.conf, exists: False\nsite:\nuser:\n")
        #expect(detection.places == ["index.example:443", "files.example:443"])
        #expect(detection.sources("index.example:443") == ["pip: the default of --index-url"])
    }

    @Test func `pip's files are read from the least to the most important`() throws {
        let detection = try pip(
            """
            env_var:
            env:
            global:
              /etc/pip.conf, exists: True
                global.index-url: https://global.example/simple
                global.cert: /etc/ssl/certs/ca-certificates.crt
            site:
              /usr/pip.conf, exists: False
            user:
              /home/you/.config/pip/pip.conf, exists: True
                global.index-url: https://name:secret@user.example:8443/simple
                global.extra-index-url: https://a.example/simple
                http://b.example/simple
                install.trusted-host: x.example
                install.find-links: /wheels https://links.example/
            """
        )
        #expect(detection.places == ["user.example:8443", "a.example:443", "b.example:80", "links.example:443"])
        #expect(detection.sources("user.example:8443") == ["pip: index-url of /home/you/.config/pip/pip.conf"])
        #expect(!"\(detection)".contains("secret"))
    }

    @Test func `pip's variables stand before its files`() throws {
        let detection = try pip(
            """
            env_var:
              PIP_INDEX_URL='https://env.example/simple'
              PIP_EXTRA_INDEX_URL='https://a.example/ https://b.example/'
              PIP_PROXY='http://proxy.example:3128'
            env:
            global:
              /etc/pip.conf, exists: True
                global.index-url: https://global.example/simple
                install.extra-index-url: https://c.example/simple
            site:
            user:
            """
        )
        #expect(detection.places == ["env.example:443", "a.example:443", "b.example:443"])
        #expect(detection.sources("env.example:443") == ["pip: index-url of the variable PIP_INDEX_URL"])
        #expect(detection.notes.count == 1)
    }

    @Test func `pip's sections for its commands are all named`() throws {
        let detection = try pip(
            """
            global:
              /etc/pip.conf, exists: True
                global.index-url: https://global.example/simple
                install.index-url: https://install.example/simple
            """
        )
        #expect(detection.places == ["install.example:443", "global.example:443"])
    }

    @Test func `pip without an index uses its links alone`() throws {
        let detection = try pip(
            """
            user:
              /home/you/pip.conf, exists: True
                global.no-index: true
                global.find-links: https://links.example/
            """
        )
        #expect(detection.places == ["links.example:443"])
    }

    @Test func `pip whose help names no default is an error`() {
        #expect(throws: DetectionError.failed(command: "pip", cause: "its help names no default for --index-url")) {
            try pip("env_var:\n", help: "Usage: pip install")
        }
    }

    private func npm(_ list: String) throws -> Detection {
        try Tool.npm.detect(
            on: FakeSystem(
                programs: ["npm": "/usr/bin/npm"],
                outputs: ["npm config list": list, "npm config get registry": "https://default.example/\n"]
            )
        )
    }

    @Test func `npm's registries are those in force, with their files`() throws {
        let detection = try npm(
            """
            ; "user" config from /home/you/.npmrc

            @corp:registry = "https://corp.example:4873/"
            //corp.example:4873/:_authToken = (protected)
            ; registry = "https://user.example/" ; overridden by project

            ; "project" config from /project/.npmrc

            registry = "https://project.example/npm/"
            https-proxy = "http://proxy.example:3128/"

            ; node bin location = /usr/bin/node
            """
        )
        #expect(detection.places == ["corp.example:4873", "project.example:443"])
        #expect(detection.sources("corp.example:4873") == ["npm: @corp:registry of /home/you/.npmrc"])
        #expect(detection.sources("project.example:443") == ["npm: registry of /project/.npmrc"])
        #expect(detection.notes.count == 1)
    }

    @Test func `npm without a registry is asked for its default`() throws {
        let detection = try npm("; node version = v20.0.0\n")
        #expect(detection.places == ["default.example:443"])
        #expect(detection.sources("default.example:443") == ["npm: the default registry"])
    }

    @Test(
        arguments: [
            ("https://proxy.example,direct\nsum.example\n", ["proxy.example:443", "sum.example:443"], 1),
            ("http://a.example:8080|https://b.example\noff\n", ["a.example:8080", "b.example:443"], 0),
            (
                "https://a.example\nsum.example+033de0ae+Ac4z https://mirror.example/db\n",
                ["a.example:443", "mirror.example:443"], 0
            ),
            ("https://a.example\nsum.example+033de0ae+Ac4z\n", ["a.example:443", "sum.example:443"], 0),
            ("off\nsum.example\n", [], 0),
            ("file:///modules\noff\n", [], 0),
        ]
    )
    func `go's proxies and checksum database`(output: String, places: [String], notes: Int) throws {
        let detection = try go(output + "\n")
        #expect(detection.places == places)
        #expect(detection.notes.count == notes)
    }

    @Test func `go's private modules come from hosts of their own, which is told`() throws {
        let detection = try go("https://proxy.example\nsum.example\n*.corp.example,git.example/me\n")
        #expect(detection.places == ["proxy.example:443", "sum.example:443"])
        #expect(
            detection.notes == [
                "go: GONOPROXY or GOPRIVATE says *.corp.example,git.example/me: such modules come from their own hosts, "
                    + "which are not listed"
            ]
        )
        // They do not go through the proxy, so its being off does not keep them from being fetched.
        #expect(try go("off\nsum.example\n*.corp.example\n").notes.count == 1)
    }

    private func go(_ output: String) throws -> Detection {
        try Tool.go.detect(
            on: FakeSystem(programs: ["go": "/usr/bin/go"], outputs: ["go env GOPROXY GOSUMDB GONOPROXY": output])
        )
    }

    @Test func `gem's sources, and the Gemfile's`() throws {
        var system = FakeSystem(
            files: [
                "/project/Gemfile":
                    "source 'https://corp.example'\ngem \"x\"\nsource \"https://b.example\" do\n# source 'https://no.example'\n"
            ],
            programs: ["gem": "/usr/bin/gem"],
            outputs: ["gem sources --list": "*** CURRENT SOURCES ***\n\nhttps://rubygems.org/\n"]
        )
        let places = ["rubygems.org:443", "corp.example:443", "b.example:443", "index.rubygems.org:443"]
        #expect(try Tool.gem.detect(on: system).places == places)
        system.projectDirectory = nil
        #expect(try Tool.gem.detect(on: system).places == ["rubygems.org:443", "index.rubygems.org:443"])
    }

    @Test func `apt's sources of every kind`() throws {
        let detection = try Tool.apt.detect(
            on: FakeSystem(
                programs: ["apt-get": "/usr/bin/apt-get"],
                outputs: [
                    "apt-get update --print-uris": """
                    'http://mirror.example:8080/debian/dists/x/InRelease' mirror.example_debian_dists_x_InRelease 0
                    'http://mirror.example:8080/debian/dists/x/main/Packages.xz' mirror.example_Packages 0
                    'https://user:secret@deb.example/debian/dists/x/InRelease' deb.example_InRelease 0
                    'cdrom://x/dists/stable/InRelease' x_dists_stable_InRelease 0
                    'file:/srv/dists/stable/InRelease' _srv_dists_stable_InRelease 0
                    'mirror+https://list.example/mirrors.txt' list.example_mirrors.txt 0
                    """,
                    "apt-config dump Acquire::http::Proxy": "Acquire::http::Proxy \"\";\n",
                ]
            )
        )
        #expect(detection.places == ["mirror.example:8080", "deb.example:443", "list.example:443"])
        #expect(detection.notes == ["apt: a source is a list of mirrors, which are not listed here"])
        #expect(!"\(detection)".contains("secret"))
    }

    @Test func `a source that apt cannot use does not hide the others`() throws {
        let ask = "apt-get update --print-uris"
        var system = FakeSystem(
            programs: ["apt-get": "/usr/bin/apt-get"],
            outputs: [ask: "'https://deb.example/debian/dists/x/InRelease' deb.example_InRelease 0\n"],
            failures: [ask: "exit status 100: E: The method driver /usr/lib/apt/methods/tor+http could not be found."]
        )
        let detection = try Tool.apt.detect(on: system)
        #expect(detection.places == ["deb.example:443"])
        #expect(detection.notes.count == 1 && detection.notes[0].contains("tor+http could not be found"))
        system.outputs = [ask: ""]
        #expect(throws: DetectionError.self) { try Tool.apt.detect(on: system) }
    }

    @Test func `git's remotes and submodules`() throws {
        var system = FakeSystem(
            programs: ["git": "/usr/bin/git"],
            outputs: [
                "git remote --verbose": """
                origin\tgit@ssh.example:owner/project.git (fetch)
                origin\tgit@ssh.example:owner/project.git (push)
                up\thttps://user:secret@web.example/x (fetch)
                old\tgit://git.example:9419/x (fetch)
                disk\t/srv/x y (fetch)
                odd\tcodecommit::region://x (fetch)
                """,
                "git config --file .gitmodules --get-regexp ^submodule\\..*\\.url$":
                    "submodule.a.url https://sub.example/a\nsubmodule.b.url ../b\n",
                "git ls-remote --get-url -- https://sub.example/a": "https://mirror.example/a\n",
            ]
        )
        let detection = try Tool.git.detect(on: system)
        #expect(
            detection.places == ["ssh.example:22", "web.example:443", "git.example:9419", "mirror.example:443"]
        )
        #expect(detection.sources("ssh.example:22") == ["git: the remote origin"])
        #expect(!"\(detection)".contains("secret"))
        system.outputs = [:]
        #expect(try Tool.git.detect(on: system).notes == ["git: /project is no repository, so there are no remotes"])
        system.projectDirectory = nil
        #expect(try Tool.git.detect(on: system) == Detection())
    }

    @Test(arguments: Tool.allCases)
    func `a tool that is missing is an error that names it`(tool: Tool) {
        let error = #expect(throws: DetectionError.self) { try tool.detect(on: FakeSystem()) }
        #expect(error?.description.hasSuffix(" is not installed: no such program on PATH") == true)
    }
}
