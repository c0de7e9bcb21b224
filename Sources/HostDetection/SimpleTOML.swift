/// The string values of a TOML document by their dotted keys, as far as configuration files of tools go: tables, dotted and
/// quoted keys, strings of one line, and inline tables of such. Whatever else there is is passed over.
enum SimpleTOML {
    static func strings(in text: String) -> [(key: String, value: String)] {
        var found: [(key: String, value: String)] = []
        var table: [String] = []
        for line in text.split(whereSeparator: \.isNewline) {
            var rest = Cursor(line)
            rest.skipSpace()
            if rest.take("[") {
                // An array of tables has nothing that is looked for.
                table = rest.take("[") ? ["[]"] : rest.key() ?? ["[]"]
            } else if let key = rest.key(), rest.take("=") {
                readValue(&rest, table + key, into: &found)
            }
        }
        return found
    }

    private static func readValue(
        _ rest: inout Cursor,
        _ key: [String],
        into found: inout [(key: String, value: String)]
    ) {
        rest.skipSpace()
        if let value = rest.string() {
            found.append((key.joined(separator: "."), value))
        } else if rest.take("{") {
            while let inner = rest.key(), rest.take("=") {
                readValue(&rest, key + inner, into: &found)
                rest.skipSpace()
                guard rest.take(",") else { break }
            }
        } else {
            rest.skip { $0 != "," && $0 != "}" }
        }
    }

    private struct Cursor {
        private var rest: Substring

        init(_ text: Substring) {
            rest = text
        }

        mutating func skipSpace() {
            skip { $0 == " " || $0 == "\t" }
        }

        mutating func skip(while predicate: (Character) -> Bool) {
            rest = rest.drop(while: predicate)
        }

        mutating func take(_ character: Character) -> Bool {
            guard rest.first == character else { return false }
            rest.removeFirst()
            return true
        }

        /// A dotted key, and the space around it.
        mutating func key() -> [String]? {
            var parts: [String] = []
            repeat {
                skipSpace()
                if let quoted = string() {
                    parts.append(quoted)
                } else {
                    let bare = rest.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-" || $0 == "_") }
                    guard !bare.isEmpty else { return nil }
                    parts.append(String(bare))
                    rest = rest[bare.endIndex...]
                }
                skipSpace()
            } while take(".")
            return parts
        }

        /// A string in single or double quotes.
        mutating func string() -> String? {
            guard let quote = rest.first, quote == "\"" || quote == "'" else { return nil }
            var value = ""
            var index = rest.index(after: rest.startIndex)
            while index < rest.endIndex, rest[index] != quote {
                if quote == "\"", rest[index] == "\\" {
                    index = rest.index(after: index)
                    guard index < rest.endIndex else { return nil }
                }
                value.append(rest[index])
                index = rest.index(after: index)
            }
            guard index < rest.endIndex else { return nil }
            rest = rest[rest.index(after: index)...]
            return value
        }
    }
}
