public import NetPrimitives

/// Names below which anybody can register one: a wildcard right below such a name allows servers of strangers. Not the
/// whole list that browsers keep, but what people write by mistake; the services among them are ``SharedHosts``.
public enum PublicSuffixes {
    private static let registries: Set<String> = [
        "ac.uk", "co.uk", "gov.uk", "ltd.uk", "me.uk", "net.uk", "org.uk", "plc.uk", "sch.uk", "com.au", "edu.au",
        "gov.au", "id.au", "net.au", "org.au", "co.nz", "govt.nz", "net.nz", "org.nz", "co.jp", "ac.jp", "go.jp",
        "ne.jp", "or.jp", "com.cn", "edu.cn", "gov.cn", "net.cn", "org.cn", "com.hk", "com.tw", "com.sg", "com.my",
        "co.kr", "or.kr", "co.in", "net.in", "org.in", "gov.in", "co.id", "co.th", "com.vn", "com.ph", "com.br",
        "net.br", "org.br", "com.ar", "com.mx", "com.co", "com.pe", "com.tr", "com.ua", "com.pl", "co.za", "org.za",
        "com.ng", "co.ke", "com.eg", "com.sa", "co.il", "org.il", "com.es",
    ]

    /// What registries of countries call the names below which they sell names.
    private static let categories: Set<String> = [
        "ac", "co", "com", "edu", "go", "gob", "gov", "ltd", "mil", "ne", "net", "or", "org",
    ]

    /// Whether anybody can get a name right below `name`.
    public static func contains(_ name: DomainName) -> Bool {
        guard let parent = name.parent else { return true }
        if registries.contains(name.description) || SharedHosts.sellsNames(below: name) { return true }
        let labels = name.labels
        return parent.bytes.count == 2 && labels.count == 2
            && categories.contains(String(decoding: labels[0], as: UTF8.self))
    }

    /// The part of `name` that somebody registered: the longest ending below a public suffix; `name` itself where it is one.
    public static func registered(in name: DomainName) -> DomainName {
        var current = name
        while let parent = current.parent, !contains(parent) { current = parent }
        return current
    }
}
