import ArgumentParser
import PolicyDocument

/// A word that stands where a command's name is expected, and is none.
struct UnknownCommand: Error, Equatable, CustomStringConvertible {
    /// The commands that lead there: `sandgate policy`.
    let path: [String]
    let word: String
    /// The names of the commands that there are.
    let names: [String]
    /// The command of that name elsewhere, if there is one: `sandgate policy lint`.
    let elsewhere: String?

    var description: String {
        let proposal = elsewhere.map { "; did you mean \($0)?" } ?? Spelling.proposal(for: word, among: names)
        return "unknown command '\(word)': expected one of \(names.joined(separator: ", "))\(proposal)"
    }

    /// What is printed for it, as for every other wrong usage.
    var message: String {
        let command = path.joined(separator: " ")
        return """
            Error: \(description)
            Usage: \(command) <subcommand>
              See '\(command) --help' for more information.

            """
    }
}

extension UnknownCommand {
    /// The first of the words of a command line that should name one of `root`'s commands, or of those below, and does not.
    /// `help` is asked about the same names. `nil` where all do, an option comes first, or there are no more words.
    init?(in words: some Collection<String>, below root: any ParsableCommand.Type) {
        var path = [root.configuration.commandName].compactMap(\.self)
        var command = root
        for (position, word) in words.enumerated() {
            if position == 0, word == "help" { continue }
            let commands = command.configuration.subcommands
            guard !commands.isEmpty, !word.hasPrefix("-") else { return nil }
            guard let named = commands.first(where: { $0.configuration.commandName == word }) else {
                let names = commands.compactMap { $0.configuration.commandName }
                self.init(path: path, word: word, names: names, elsewhere: Self.place(of: word, below: root))
                return
            }
            path.append(word)
            command = named
        }
        return nil
    }

    /// The words that name the command `name`, one level below `root` or two.
    private static func place(of name: String, below root: any ParsableCommand.Type) -> String? {
        for command in root.configuration.subcommands {
            let words = [root, command].compactMap { $0.configuration.commandName }
            if words.last == name { return words.joined(separator: " ") }
            if command.configuration.subcommands.contains(where: { $0.configuration.commandName == name }) {
                return (words + [name]).joined(separator: " ")
            }
        }
        return nil
    }
}
