import EgressPolicy
import NetPrimitives

/// Exactly one label below a name, which many tools mean by `*.example.com`. A wildcard of ours is any number of labels, a
/// pattern is one label that has something in common: so it takes a pattern for each first character that a label can
/// have.
enum SingleLabel {
    private static let firstCharacters = Array("abcdefghijklmnopqrstuvwxyz0123456789-_".utf8)

    /// The targets that together match every name right below `parent`, and no other.
    static func targets(below parent: DomainName) -> [Target] {
        firstCharacters.map { .label(prefix: [$0], suffix: [], parent: parent) }
    }
}
