/// What this program calls itself.
enum Version {
    /// The version of the command, the API and the formats.
    static let text = "sandgate 0.1.0"
}
