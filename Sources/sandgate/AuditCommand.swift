import ArgumentParser
import Audit
import Glibc
import NetPrimitives
import Reactor

/// `sandgate audit`: read, follow and verify audit files.
struct AuditCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "audit",
        abstract: "Read the record of what was allowed and refused, follow it, or verify its hash chain.",
        usage: "sandgate audit (--file FILE | --dir DIR) [OPTIONS]",
        discussion: """
            Without filters, every record is shown. With several filters, a record has to pass each of them. With \
            --dir, the files ending in .jsonl are read together, in order of time; audit.jsonl and the files named after \
            their first record (audit-00000000000000000042.jsonl) are what one daemon writes, and read as one.

            --verify recomputes the chain: every record carries the SHA-256 of the line before it. It finds changed, \
            removed, inserted and reordered lines, and prints the head of the chain: keep that elsewhere to find out \
            whether the end of the file, or all of it, was written anew.

            The exit status is 0 when all is well, 1 when a chain is broken, 2 when a file cannot be \
            read or output not be written.

            EXAMPLES:
              sandgate audit --file audit.jsonl --verdict deny --since 10m
              sandgate audit --file audit.jsonl --host '*.example.com' --json | jq -r .host
              sandgate audit --file audit.jsonl --follow
              sandgate audit --file audit.jsonl --verify
            """
    )

    @Option(help: ArgumentHelp("Read this file; - is standard input.", valueName: "file"))
    var file: String?

    @Option(help: ArgumentHelp("Read every file in this directory that ends in .jsonl.", valueName: "dir"))
    var dir: String?

    @Option(help: ArgumentHelp("Only records of this sandbox.", valueName: "id"))
    var sandbox: String?

    @Option(
        help: ArgumentHelp(
            "Only what was judged so: allow, deny, report (let through only by report mode), or refused (either).",
            valueName: "verdict"
        )
    )
    var verdict: VerdictFilter?

    @Option(
        help: ArgumentHelp(
            "Only events whose kind matches, such as dns.denied or 'question.*': * stands for any characters, ? for one.",
            valueName: "glob"
        )
    )
    var event: String?

    @Option(
        help: ArgumentHelp(
            "Only what is not older: 90s, 10m, 2h, 7d, or a time such as 2026-11-23T00:41:07Z.",
            valueName: "time"
        )
    )
    var since: String?

    @Option(
        help: ArgumentHelp(
            "Only hosts or addresses that match: * stands for any characters, ? for one.",
            valueName: "glob"
        )
    )
    var host: String?

    @Flag(help: "Print records as they are in the file, one JSON object a line.")
    var json = false

    @Flag(name: .shortAndLong, help: "Show what is there, then go on with new records until interrupted.")
    var follow = false

    @Flag(help: "Check the hash chain instead of showing records.")
    var verify = false

    private static let chainBroken = ExitCode(1)
    private static let unreadable = ExitCode(2)

    func validate() throws {
        guard (file == nil) != (dir == nil) else {
            throw ValidationError("say what to read: --file FILE or --dir DIR")
        }
        if verify, follow || sandbox != nil || verdict != nil || event != nil || since != nil || host != nil {
            throw ValidationError("--verify checks whole files: it takes neither --follow nor filters")
        }
        if let since, AuditQuery.since(parsing: since, now: .current) == nil {
            throw ValidationError("--since \(since): expected 90s, 10m, 2h, 7d or a time such as 2026-11-23T00:41:07Z")
        }
    }

    func run() throws {
        // `sandgate audit … | head` ends as every other filter does.
        signal(SIGPIPE, SIG_DFL)
        do {
            if verify {
                try verifyFiles()
            } else {
                var listing = try AuditListing(
                    source: dir.map { .directory($0) } ?? .file(file ?? "-"),
                    query: query,
                    isJSON: json
                )
                try listing.showAll()
                if follow { try listing.follow() }
            }
        } catch let error as AuditError {
            Console.error(error.description)
            throw Self.unreadable
        } catch let error as SetupError {
            Console.error(error.description)
            throw Self.unreadable
        }
    }

    private var query: AuditQuery {
        AuditQuery(
            sandbox: sandbox,
            verdict: verdict?.verdict,
            event: event.map { Glob($0) },
            since: since.flatMap { AuditQuery.since(parsing: $0, now: .current) },
            host: host.map { Glob($0) }
        )
    }

    private func verifyFiles() throws {
        let paths = try dir.map { try AuditListing.Source.directory($0).paths() } ?? [file ?? "-"]
        var output = StandardOutput()
        var isIntact = true
        if let dir { isIntact = try verifyTrail(dir, &output) }
        for path in paths {
            let (verifier, broken) = try verified(path)
            isIntact = isIntact && broken == nil
            if json {
                try output.line(verifier.report(file: path, broken: broken))
            } else if let broken {
                Console.error("\(path): \(broken)")
                if broken.isLateBeginning {
                    Console.error("\(path): if it is one of a daemon's files, verify them as one: --dir")
                }
            } else {
                try output.line("\(path): \(verifier.summary)")
            }
        }
        try output.flush()
        if !isIntact { throw Self.chainBroken }
    }

    /// Checks the files of the trail in a directory, if there are any, as one chain.
    private func verifyTrail(_ directory: String, _ output: inout StandardOutput) throws -> Bool {
        let verification = try TrailVerification(directory: directory)
        guard let newest = verification.files.last else { return true }
        if json {
            try output.line(verification.report)
        } else if let (file, broken) = verification.broken {
            Console.error("\(file): \(broken)")
        } else {
            let older = verification.files.count - 1
            let name = older == 0 ? newest : "\(newest) and \(older.counted("older file"))"
            try output.line("\(name): \(verification.verifier.summary)")
        }
        if verification.endsInsideLine { warnOfPartialLine(newest) }
        return verification.broken == nil
    }

    private func verified(_ path: String) throws(AuditError) -> (AuditVerifier, AuditVerifier.Break?) {
        let reader = try AuditReader(path: path)
        var verifier = AuditVerifier()
        while let line = try reader.next() {
            do {
                try verifier.consume(line.bytes)
            } catch {
                return (verifier, error)
            }
        }
        do {
            try verifier.finish(partial: reader.partial)
        } catch {
            return (verifier, error)
        }
        if !reader.partial.isEmpty {
            warnOfPartialLine(path)
        }
        return (verifier, nil)
    }

    private func warnOfPartialLine(_ path: String) {
        Console.error("\(path): the last line is not complete: cut off, or being written")
    }
}

/// The values of `--verdict`.
enum VerdictFilter: String, ExpressibleByArgument, CaseIterable {
    case allow
    case deny
    case report
    case refused

    var verdict: AuditQuery.Verdict {
        switch self {
        case .allow: .allow
        case .deny: .deny
        case .report: .report
        case .refused: .refused
        }
    }
}
