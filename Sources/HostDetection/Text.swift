/// The words of a text.
func words(_ text: some StringProtocol) -> [String] {
    String(text).split(whereSeparator: \.isWhitespace).map(String.init)
}

extension StringProtocol {
    /// Without any of these characters at both ends.
    func trimming(_ characters: String) -> String {
        var rest = self[...]
        while let first = rest.first, characters.contains(first) { rest.removeFirst() }
        while let last = rest.last, characters.contains(last) { rest.removeLast() }
        return String(rest)
    }
}
