import HostDetection
import Testing

/// Settings that a command line names: `mvn -s FILE` and the like.
struct NamedSettingsTests {
    private static let system = FakeSystem(
        projectDirectory: nil,
        files: [
            "/etc/outside.xml": "<mirror><mirrorOf>*</mirrorOf><url>https://outside.example/m2</url></mirror>",
            "/project/inside.xml": "<mirror><mirrorOf>*</mirrorOf><url>https://inside.example/m2</url></mirror>",
            "/home/you/.m2/settings.xml": "<mirror><mirrorOf>*</mirrorOf><url>https://user.example/m2</url></mirror>",
            "/usr/share/maven/conf/settings.xml": "<repository><url>https://global.example/</url></repository>",
            "/etc/outside.toml": "[registries.corp]\nindex = \"sparse+https://outside.example/\"\n",
            "/project/inside.toml": "[registries.corp]\nindex = \"sparse+https://inside.example/\"\n",
            "/etc/npmrc": "",
        ],
        programs: ["mvn": "/usr/share/maven/bin/mvn", "npm": "/usr/bin/npm", "cargo": "/usr/bin/cargo"],
        outputs: [
            "npm config list": "registry = \"https://user.example/\"\n",
            "npm config list --userconfig=/etc/npmrc": "registry = \"https://outside.example/\"\n",
        ]
    )

    private func detect(_ command: String) throws -> Detection {
        let invocation = try #require(Tool.Invocation(command: command.split(separator: " ").map(String.init)))
        return try invocation.detect(on: Self.system)
    }

    @Test(
        arguments: [
            "mvn -s /etc/outside.xml package", "mvn package --settings /etc/outside.xml",
            "mvn --settings=/etc/outside.xml package",
        ]
    )
    func `Maven's settings outside of the working directory stand in for the user's`(command: String) throws {
        let detection = try detect(command)
        #expect(detection.places == ["outside.example:443"])
        #expect(detection.notes.isEmpty)
    }

    @Test(
        arguments: [
            "mvn -s inside.xml package", "mvn -s /project/inside.xml package", "mvn --settings=../outside.xml package",
        ]
    )
    func `Maven's settings of the working directory are not read, which is told`(command: String) throws {
        let detection = try detect(command)
        #expect(detection.places == ["repo.maven.apache.org:443", "global.example:443"])
        #expect(
            detection.notes == [
                "maven: the file of --settings was not read: it is no absolute path out of the working directory"
            ]
        )
    }

    @Test func `Maven's global settings are the installation's or those that are named`() throws {
        #expect(try detect("mvn -gs /etc/outside.xml -s /nonexistent").places == ["outside.example:443"])
    }

    @Test func `npm is asked with the file that it will be given`() throws {
        for command in ["npm ci --userconfig=/etc/npmrc", "npm --userconfig /etc/npmrc ci"] {
            #expect(try detect(command).places == ["outside.example:443"])
        }
        for command in ["npm ci --userconfig=.npmrc", "npm ci --userconfig /project/.npmrc"] {
            let detection = try detect(command)
            #expect(detection.places == ["user.example:443"])
            #expect(detection.notes.count == 1 && detection.notes[0].contains("--userconfig was not read"))
        }
        #expect(try detect("npm run x -- --userconfig=.npmrc").notes.isEmpty)
    }

    @Test func `cargo's settings on the command line are the most important`() throws {
        let defaults = ["index.crates.io:443", "static.crates.io:443"]
        let inFile = try detect("cargo --config /etc/outside.toml build")
        #expect(inFile.places == defaults + ["outside.example:443"])
        let inWords = try detect(
            "cargo build --config /etc/outside.toml --config registries.corp.index='sparse+https://words.example/'"
        )
        #expect(inWords.places == defaults + ["words.example:443"])
        for command in ["cargo --config inside.toml build", "cargo --config=/project/inside.toml build"] {
            let detection = try detect(command)
            #expect(detection.places == defaults)
            #expect(detection.notes.count == 1 && detection.notes[0].contains("--config was not read"))
        }
    }
}
