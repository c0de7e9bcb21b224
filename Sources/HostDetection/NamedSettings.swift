/// Options of a command line that name a tool's settings: files, or the settings themselves.
///
/// A file counts when it lies outside of the working directory; what lies inside may be the very thing that is not trusted.
struct NamedSettings {
    /// What stands behind the tool's name.
    var arguments: [String] = []

    /// The values of an option, in order, written `--name VALUE` or `--name=VALUE`. What stands behind `--` is not the
    /// tool's.
    func values(of option: String) -> [String] {
        var values: [String] = []
        var rest = arguments.prefix { $0 != "--" }
        while let word = rest.popFirst() {
            if word == option {
                if let value = rest.popFirst() { values.append(value) }
            } else if word.hasPrefix("\(option)=") {
                values.append(String(word.dropFirst(option.count + 1)))
            }
        }
        return values
    }

    /// Whether an option is there.
    func names(_ option: String) -> Bool { !values(of: option).isEmpty }

    /// What to say of a file that does not count. Without its name: the person has written it.
    static func note(ofUnread option: String, of tool: Tool) -> String {
        "\(tool.rawValue): the file of \(option) was not read: it is no absolute path out of the working directory"
    }
}

/// A file that a command line names in place of one of the tool's own.
struct NamedFile {
    /// The option that names it, in its long form.
    let option: String
    /// The file, links resolved; `nil` when it does not count.
    let path: String?

    /// The file that the last of these options names; `nil` when none does.
    init?(of options: [String], in settings: NamedSettings, on system: any ToolSystem) {
        guard let value = options.compactMap({ settings.values(of: $0).last }).last else { return nil }
        option = options[0]
        path = system.outsidePath(value)
    }
}
