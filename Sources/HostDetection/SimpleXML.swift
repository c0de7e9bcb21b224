/// The elements of an XML document by name, as far as settings files of tools go: no namespaces, no entities but the
/// predefined ones, no CDATA.
struct SimpleXML {
    private let text: Substring

    init(_ text: String) {
        self.text = Self.withoutComments(text)[...]
    }

    private init(inner text: Substring) {
        self.text = text
    }

    private static func withoutComments(_ text: String) -> String {
        var kept = ""
        var rest = text[...]
        while let open = rest.firstRange(of: "<!--") {
            kept += rest[..<open.lowerBound]
            rest = rest[open.upperBound...].firstRange(of: "-->").map { rest[$0.upperBound...] } ?? ""
        }
        return kept + rest
    }

    /// Every element of that name, at any depth.
    func elements(_ name: String) -> [SimpleXML] {
        var found: [SimpleXML] = []
        var rest = text
        while let open = rest.firstRange(of: "<\(name)") {
            rest = rest[open.upperBound...]
            // Neither `<mirrors>` nor `<mirrorOf>`.
            guard let next = rest.first, next == ">" || next.isWhitespace, let end = rest.firstIndex(of: ">") else {
                continue
            }
            guard let close = rest.firstRange(of: "</\(name)>") else { break }
            let start = rest.index(after: end)
            if start <= close.lowerBound { found.append(SimpleXML(inner: rest[start..<close.lowerBound])) }
            rest = rest[close.upperBound...]
        }
        return found
    }

    /// The text of the first element of that name.
    func text(of name: String) -> String? {
        elements(name).first.map {
            $0.text.trimming(" \t\r\n").replacing("&lt;", with: "<").replacing("&gt;", with: ">")
                .replacing("&amp;", with: "&")
        }
    }
}
