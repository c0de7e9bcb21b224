extension BinaryInteger {
    /// The number with a noun, as people are told it: `1 rule`, `3 rules`, `2 queries` (`plural` where no "s" makes it).
    package func counted(_ noun: String, _ plural: String? = nil) -> String {
        "\(self) \(self == 1 ? noun : plural ?? noun + "s")"
    }
}
