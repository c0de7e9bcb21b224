import FilePrimitives

/// The words of a command that is to be started. They are its own, whatever bytes they hold: a name of a file need not be
/// UTF-8.
enum CommandWords {
    /// The last of this process's arguments, which `words` are, as they were given.
    static func asGiven(_ words: [String]) -> [SystemString] {
        let first = Int(CommandLine.argc) - words.count
        let given = (max(first, 0)..<Int(CommandLine.argc)).compactMap { CommandLine.unsafeArgv[$0] }
            .map { SystemString(cString: $0) }
        return given.map(\.description) == words ? given : words.map { SystemString($0) }
    }
}
