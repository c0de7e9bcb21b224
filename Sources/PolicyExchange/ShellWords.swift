import PolicyDocument

/// The words of one command as a shell splits it, without anything that a shell would expand or run.
enum ShellWords {
    struct Word {
        let text: String
        let position: DocumentNode.Position
    }

    /// Splits bytes; `nil` with a problem where something is not plain.
    static func split(_ bytes: [UInt8], _ reader: inout ImportReader) -> [Word]? {
        guard bytes.count <= 64 << 10, let text = String(validating: bytes, as: UTF8.self) else {
            reader.report(.init(), "", "expected a command of at most 64 KiB in UTF-8")
            return nil
        }
        var words: [Word] = []
        var position = DocumentNode.Position()
        var word: String?
        var start = position
        var quote: Unicode.Scalar?
        var isEscaped = false
        func end() {
            if let text = word { words.append(Word(text: text, position: start)) }
            word = nil
        }
        func take(_ scalar: Unicode.Scalar?) {
            if word == nil {
                word = ""
                start = position
            }
            if let scalar { word!.unicodeScalars.append(scalar) }
        }
        for scalar in text.unicodeScalars {
            if isEscaped {
                isEscaped = false
                if scalar != "\n" { take(scalar) }
            } else if scalar == "\\", quote != "'" {
                isEscaped = true
            } else if let open = quote {
                if scalar == open {
                    quote = nil
                } else if open == "\"", "$`".unicodeScalars.contains(scalar) {
                    return refuse(scalar, position, &reader)
                } else {
                    take(scalar)
                }
            } else if scalar == "'" || scalar == "\"" {
                take(nil)
                quote = scalar
            } else if " \t\r\n".unicodeScalars.contains(scalar) {
                end()
            } else if "`;|&<>(){}#".unicodeScalars.contains(scalar) || scalar == "$" && (word != nil || !words.isEmpty)
            {
                return refuse(scalar, position, &reader)
            } else {
                take(scalar)
            }
            if scalar == "\n" {
                position = .init(line: position.line + 1, column: 1)
            } else {
                position = .init(line: position.line, column: position.column + 1)
            }
        }
        guard quote == nil, !isEscaped else {
            reader.report(start, "", "expected a closing quote")
            return nil
        }
        end()
        return words
    }

    private static func refuse(
        _ scalar: Unicode.Scalar,
        _ position: DocumentNode.Position,
        _ reader: inout ImportReader
    ) -> [Word]? {
        reader.report(position, "", "\"\(scalar)\" means something to a shell: expected one plain command")
        return nil
    }
}
