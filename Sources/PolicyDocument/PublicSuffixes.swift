import NetPrimitives

/// Names below which anybody can register one: a wildcard right below such a name allows servers of strangers. Not the
/// whole list that browsers keep, but what people write by mistake.
enum PublicSuffixes {
    private static let known: Set<String> = [
        "ac.uk", "co.uk", "gov.uk", "ltd.uk", "me.uk", "net.uk", "org.uk", "plc.uk", "sch.uk", "com.au", "edu.au",
        "gov.au", "id.au", "net.au", "org.au", "co.nz", "govt.nz", "net.nz", "org.nz", "co.jp", "ac.jp", "go.jp",
        "ne.jp", "or.jp", "com.cn", "edu.cn", "gov.cn", "net.cn", "org.cn", "com.hk", "com.tw", "com.sg", "com.my",
        "co.kr", "or.kr", "co.in", "net.in", "org.in", "gov.in", "co.id", "co.th", "com.vn", "com.ph", "com.br",
        "net.br", "org.br", "com.ar", "com.mx", "com.co", "com.pe", "com.tr", "com.ua", "com.pl", "co.za", "org.za",
        "com.ng", "co.ke", "com.eg", "com.sa", "co.il", "org.il", "com.es",
        // Where people put their own pages and buckets.
        "github.io", "gitlab.io", "pages.dev", "workers.dev", "vercel.app", "netlify.app", "herokuapp.com", "web.app",
        "firebaseapp.com", "appspot.com", "run.app", "azurewebsites.net", "blob.core.windows.net", "cloudfront.net",
        "s3.amazonaws.com", "amazonaws.com", "ngrok.io", "ngrok.app", "ngrok-free.app", "trycloudflare.com", "repl.co",
        "fly.dev", "onrender.com", "surge.sh", "glitch.me", "webhook.site", "duckdns.org",
    ]

    /// Whether anybody can get a name right below `name`.
    static func contains(_ name: DomainName) -> Bool {
        name.parent == nil || known.contains(name.description)
    }
}
