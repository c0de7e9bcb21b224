import EgressPolicy
import PolicyExchange
import Testing

@Suite struct HardenRunnerImporterTests {
    private static let workflow = """
        name: build
        on: [push]
        jobs:
          build:
            runs-on: ubuntu-latest
            steps:
              - uses: step-security/harden-runner@0123456789abcdef0123456789abcdef01234567 # v2
                with:
                  egress-policy: block
                  allowed-endpoints: >
                    api.example.com:443
                    mirror.example.org:80
                    *.blob.example.net:443
              - uses: actions/checkout@v4
          release:
            runs-on: ubuntu-latest
            steps:
              - uses: Step-Security/Harden-Runner@v2
                with:
                  egress-policy: audit
                  allowed-endpoints: upload.example.com
                  disable-sudo: true
          docs:
            uses: ./.github/workflows/docs.yml
        """

    @Test func `a job's list`() throws {
        let imported = try Exchange.load(.hardenRunner, Self.workflow, selection: .init(job: "build"))
        #expect(imported.notes.isEmpty)
        try Exchange.check(
            imported,
            [
                ("api.example.com", .allows), ("api.example.com:80", .denies), ("api.example.com:443/udp", .denies),
                ("mirror.example.org:80", .allows), ("mirror.example.org", .denies), ("a.blob.example.net", .allows),
                ("a.b.blob.example.net", .allows), ("blob.example.net", .denies), ("other.example", .denies),
                ("upload.example.com", .denies),
            ]
        )
    }

    @Test func `an audit is enforced, and that is told`() throws {
        let imported = try Exchange.load(.hardenRunner, Self.workflow, selection: .init(job: "release"))
        #expect(Exchange.notes(imported) == ["20:26 jobs.release.steps[0].with.egress-policy narrowed"])
        try Exchange.check(imported, [("upload.example.com", .allows), ("other.example", .allowsMore)])
    }

    @Test func `the list as text`() throws {
        let imported = try Exchange.load(.hardenRunner, "api.example.com\n  *.example.org:443 192.0.2.7:22\n")
        #expect(Exchange.notes(imported) == ["2:21 [2] left out"])
        try Exchange.check(
            imported,
            [
                ("api.example.com", .allows), ("a.example.org", .allows), ("192.0.2.7:22", .allowsMore),
                ("192.0.2.7", .denies),
                ("example.org", .denies),
            ]
        )
    }

    @Test func `an action's steps`() throws {
        let imported = try Exchange.load(
            .hardenRunner,
            """
            runs:
              using: composite
              steps:
                - uses: step-security/harden-runner@v2
                  with: {allowed-endpoints: "a.example:443 b.example:443", use-policy-store: true}
            """
        )
        #expect(Exchange.notes(imported) == ["5:64 runs.steps[0].with.use-policy-store left out"])
        try Exchange.check(imported, [("a.example", .allows), ("b.example", .allows)])
    }

    @Test func `jobs with different lists have to be told apart`() {
        #expect(
            Exchange.problems(.hardenRunner, Self.workflow) == [
                "f:18:9: jobs.release.steps[0]: another list than in jobs.build.steps[0]: say --job, one of build, release"
            ]
        )
        #expect(
            Exchange.problems(.hardenRunner, Self.workflow, selection: .init(job: "docs")) == [
                #"f:1:1: jobs: no step uses step-security/harden-runner in the job "docs"; expected --job, one of build, release"#
            ]
        )
    }

    @Test(arguments: [
        ("", "f:1:1: no endpoints: expected host:port, or a workflow"),
        ("a.example:443\n  bad..example:443\n", #"f:2:3: [1]: "bad..example" is not a name: it has an empty label"#),
        ("a.example:https\n", #"f:1:1: [0]: expected a port of 1...65535 behind the colon, found "a.example:https""#),
        ("10.0.0.0/8\n", #"f:1:1: [0]: expected a name, *.name or an address, found "10.0.0.0/8""#),
        (
            "jobs: {a: {steps: [{uses: step-security/harden-runner@v2, with: {allowed-endpoints: '${{ vars.LIST }}'}}]}}\n",
            "f:1:85: jobs.a.steps[0].with.allowed-endpoints: an expression cannot be evaluated here: write the endpoints out"
        ),
        (
            "jobs: {a: {steps: [{uses: step-security/harden-runner@v2, with: {egress-policy: off}}]}}\n",
            "f:1:81: jobs.a.steps[0].with.egress-policy: expected block or audit, found off"
        ),
        ("jobs: {a: {steps: [{run: make}]}}\n", "f:1:1: jobs: no step uses step-security/harden-runner here"),
    ])
    func `a mistake is told with its place`(text: String, problem: String) {
        #expect(Exchange.problems(.hardenRunner, text) == [problem])
    }
}
