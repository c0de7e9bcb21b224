import ArgumentParser

@main
struct Sandgate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sandgate",
        abstract: "Run untrusted code that can reach only what its policy allows.")
}
