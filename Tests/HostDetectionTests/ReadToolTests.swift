import HostDetection
import Testing

/// Tools whose configuration has to be read, because they do not report it.
struct ReadToolTests {
    private func cargo(_ files: [String: String], variables: [String: String] = [:]) throws -> Detection {
        try Tool.cargo.detect(
            on: FakeSystem(
                projectDirectory: "/checkouts/project",
                variables: variables.merging(["HOME": "/home/you"]) { $1 },
                files: files,
                programs: ["cargo": "/usr/bin/cargo"]
            )
        )
    }

    @Test func `cargo without configuration uses crates io`() throws {
        #expect(try cargo([:]).places == ["index.crates.io:443", "static.crates.io:443"])
    }

    @Test(
        arguments: [
            """
            [source.crates-io]
            replace-with = "first"
            [source.first]
            replace-with = 'mirror' # and on
            [source.mirror]
            registry = "sparse+https://user:secret@crates.example:8443/index/"
            """,
            "source.crates-io.replace-with = \"mirror\"\nsource.mirror.registry = \"sparse+https://crates.example:8443/\"\n",
            """
            [source]
            crates-io = { replace-with = "mirror" }
            "mirror" = { registry = "sparse+https://crates.example:8443/" }
            """,
            "[source.crates-io]\nreplace-with = \"m\"\n[registries.m]\nindex = \"sparse+https://crates.example:8443/\"\n",
        ]
    )
    func `cargo's source replacement is followed`(config: String) throws {
        let detection = try cargo(["/home/you/.cargo/config.toml": config])
        #expect(detection.places == ["crates.example:8443"])
        #expect(detection.hosts[0].sources[0].hasSuffix("of /home/you/.cargo/config.toml"))
        #expect(!"\(detection)".contains("secret"))
    }

    @Test func `cargo's crates may lie elsewhere than its index`() throws {
        let detection = try cargo(
            [
                "/c/config": "[source.crates-io]\nreplace-with='m'\n[source.m]\nregistry='https://index.example/git'\n",
                "/c/registry/index/index.example-0123456789abcdef/config.json":
                    "{\"dl\": \"https://files.example/crates\", \"api\": \"https://api.example\"}",
                "/c/registry/index/other.example-0123456789abcdef/config.json": "{\"dl\": \"https://no.example/\"}",
            ],
            variables: ["CARGO_HOME": "/c"]
        )
        #expect(detection.places == ["index.example:443", "files.example:443"])
    }

    @Test func `cargo's nearer configuration stands before its farther, and variables before both`() throws {
        let files = [
            "/checkouts/.cargo/config.toml": "[registries.corp]\nindex = 'sparse+https://near.example/'\n",
            "/home/you/.cargo/config.toml": "[registries]\ncorp.index = 'sparse+https://far.example/'\n",
        ]
        let defaults = ["index.crates.io:443", "static.crates.io:443"]
        #expect(try cargo(files).places == defaults + ["near.example:443"])
        let variables = ["CARGO_REGISTRIES_CORP_INDEX": "sparse+https://env.example/"]
        #expect(try cargo(files, variables: variables).places == defaults + ["env.example:443"])
    }

    @Test func `cargo's registry needs no file beside its variable`() throws {
        let variables = [
            "CARGO_REGISTRIES_MY_CORP_INDEX": "sparse+https://env.example/", "CARGO_REGISTRIES__INDEX": "x",
        ]
        let detection = try cargo([:], variables: variables)
        #expect(detection.places == ["index.crates.io:443", "static.crates.io:443", "env.example:443"])
        let origin = "the variable CARGO_REGISTRIES_MY_CORP_INDEX"
        #expect(detection.sources("env.example:443") == ["cargo: registries.my_corp of \(origin)"])
        // A source that is replaced by it is written with a hyphen.
        let files = ["/home/you/.cargo/config.toml": "[source.crates-io]\nreplace-with = \"my-corp\"\n"]
        #expect(try cargo(files, variables: variables).places == ["env.example:443"])
    }

    @Test func `cargo's index of crates io may be a git repository`() throws {
        let places = ["github.com:443", "static.crates.io:443"]
        let sparse = ["index.crates.io:443", "static.crates.io:443"]
        let files = ["/home/you/.cargo/config.toml": "[registries.crates-io]\nprotocol = \"git\"\n"]
        #expect(try cargo(files).places == places)
        let variable = "CARGO_REGISTRIES_CRATES_IO_PROTOCOL"
        #expect(try cargo([:], variables: [variable: "git"]).places == places)
        #expect(try cargo(files, variables: [variable: "sparse"]).places == sparse)
    }

    @Test func `cargo's vendored crates need no host`() throws {
        let config = "[source.crates-io]\nreplace-with = 'v'\n[source.v]\ndirectory = 'vendor'\n"
        #expect(try cargo(["/checkouts/project/.cargo/config.toml": config]) == Detection())
    }

    @Test func `cargo's endless replacement ends`() throws {
        let config = "[source.crates-io]\nreplace-with = 'a'\n[source.a]\nreplace-with = 'crates-io'\n"
        #expect(try cargo(["/home/you/.cargo/config.toml": config]).places.count <= 2)
    }

    private func maven(_ files: [String: String]) throws -> Detection {
        try Tool.maven.detect(on: FakeSystem(files: files, programs: ["mvn": "/usr/share/maven/bin/mvn"]))
    }

    @Test func `Maven without configuration uses central`() throws {
        #expect(try maven([:]).places == ["repo.maven.apache.org:443"])
        let blocker = """
            <settings><mirrors><mirror><id>maven-default-http-blocker</id><mirrorOf>external:http:*</mirrorOf>
            <url>http://0.0.0.0/</url><blocked>true</blocked></mirror></mirrors></settings>
            """
        #expect(try maven(["/usr/share/maven/conf/settings.xml": blocker]).places == ["repo.maven.apache.org:443"])
    }

    private static let repositories = """
        <project>
          <repositories><repository><id>a</id><url>https://a.example/m2</url></repository></repositories>
          <!-- <repositories><repository><url>https://no.example/m2</url></repository></repositories> -->
          <pluginRepositories>
            <pluginRepository><url>http://b.example:8081/m2?x=1&amp;y=2</url></pluginRepository>
          </pluginRepositories>
        </project>
        """

    @Test func `Maven's project has repositories of its own`() throws {
        let detection = try maven(["/project/pom.xml": Self.repositories])
        #expect(detection.places == ["repo.maven.apache.org:443", "a.example:443", "b.example:8081"])
        #expect(detection.sources("b.example:8081") == ["maven: a pluginRepository of /project/pom.xml"])
    }

    @Test(
        arguments: [
            ("*", ["mirror.example:443"]),
            ("central", ["mirror.example:443", "a.example:443", "b.example:8081"]),
            ("*,!a", ["mirror.example:443", "a.example:443"]),
            ("*, !central", ["mirror.example:443", "repo.maven.apache.org:443"]),
            ("external:*", ["mirror.example:443"]),
            ("external:http:*", ["mirror.example:443", "repo.maven.apache.org:443", "a.example:443"]),
            ("corp", ["mirror.example:443", "repo.maven.apache.org:443", "a.example:443", "b.example:8081"]),
        ]
    )
    func `Maven's mirrors stand in for what they mirror`(of: String, places: [String]) throws {
        let settings = """
            <settings xmlns="http://maven.apache.org/SETTINGS/1.2.0">
              <mirrors><mirror><id>m</id><mirrorOf>\(of)</mirrorOf>
                <url> https://mirror.example/m2 </url></mirror></mirrors>
            </settings>
            """
        let files = ["/home/you/.m2/settings.xml": settings, "/project/pom.xml": Self.repositories]
        #expect(try maven(files).places == places)
    }

    @Test func `Maven prefers a mirror that names a repository alone, and one that blocks leads nowhere`() throws {
        let settings = """
            <mirror><mirrorOf>*</mirrorOf><url>http://0.0.0.0/</url><blocked>true</blocked></mirror>
            <mirror><mirrorOf>central</mirrorOf><url>https://mirror.example/m2</url></mirror>
            """
        let files = ["/home/you/.m2/settings.xml": settings, "/project/pom.xml": Self.repositories]
        #expect(try maven(files).places == ["mirror.example:443"])
    }

    @Test func `a project may say where Maven's central is`() throws {
        let pom = """
            <repository><id>central</id><url>https://a.example/m2</url></repository>
            <pluginRepository><id>central</id><url>https://b.example/m2</url></pluginRepository>
            """
        #expect(try maven(["/project/pom.xml": pom]).places == ["a.example:443", "b.example:443"])
    }

    @Test func `a repository that is a placeholder is noted`() throws {
        let pom = "<repository><url>${corp.url}</url></repository>"
        #expect(
            try maven(["/project/pom.xml": pom]).notes
                == ["maven: a repository of /project/pom.xml: not understood, so not allowed"]
        )
    }
}
