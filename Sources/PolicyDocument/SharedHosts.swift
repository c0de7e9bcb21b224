public import NetPrimitives

/// Services that serve what anybody puts there, or pass on what anybody sends: a rule that allows one of them allows more
/// than its owner. Generic, well-known names only; a list to review and extend, not one to rely on.
public enum SharedHosts {
    /// What is shared.
    public enum Kind: String, Hashable, Sendable, CaseIterable {
        /// Many customers' content behind the same names and addresses.
        case contentNetwork
        /// Buckets.
        case objectStore
        /// Programs and pages of customers, each below a name of its own.
        case hosting
        /// Repositories, pastes, files and posts of users.
        case userContent
        /// Takes messages for whoever made the address.
        case inbox
        /// Leads to whatever machine a customer connected.
        case tunnel
        /// Names that anybody points anywhere.
        case dynamicName
        /// Answers DNS questions over HTTPS, for any name.
        case resolver

        /// What to think of before it is allowed; a clause.
        public var caution: String {
            switch self {
            case .contentNetwork: "a shared content network: others' content is served there, too"
            case .objectStore: "an object store: anybody can have a bucket there, and write to one of their own"
            case .hosting: "shared hosting: anybody can have a program or page there"
            case .userContent: "serves what its users put there, and may take what yours sends"
            case .inbox: "takes messages for anybody who asks for an address there: data can leave this way"
            case .tunnel: "a tunnel: leads to whatever machine its customer connected"
            case .dynamicName: "a dynamic name: its owner can point it anywhere at any time"
            case .resolver: "answers DNS over HTTPS: a way to ask for names that the policy does not allow"
            }
        }

        /// Whether anybody can get a name right below the listed ones.
        fileprivate var sellsNames: Bool {
            switch self {
            case .contentNetwork, .objectStore, .hosting, .tunnel, .dynamicName: true
            case .userContent, .inbox, .resolver: false
            }
        }
    }

    /// Each kind with the names at which, and below which, it is found.
    public static let table: [(kind: Kind, names: [String])] = [
        (
            .contentNetwork,
            [
                "akamaihd.net", "akamaized.net", "azureedge.net", "azurefd.net", "b-cdn.net", "cdn77.org",
                "cloudflare.net", "cloudfront.net", "edgekey.net", "edgesuite.net", "esm.sh", "fastly.net",
                "fastlylb.net", "hwcdn.net", "jsdelivr.net", "kxcdn.com", "llnwd.net", "skypack.dev",
                "stackpathcdn.com",
                "statically.io", "unpkg.com",
            ]
        ),
        (
            .objectStore,
            [
                "aliyuncs.com", "backblazeb2.com", "blob.core.windows.net", "dfs.core.windows.net",
                "digitaloceanspaces.com", "file.core.windows.net", "linodeobjects.com", "myqcloud.com", "r2.dev",
                "r2.cloudflarestorage.com", "s3.amazonaws.com", "scw.cloud", "storage.cloud.google.com",
                "storage.googleapis.com", "supabase.co", "vultrobjects.com", "wasabisys.com",
            ]
        ),
        (
            .hosting,
            [
                "amazonaws.com", "appspot.com", "azurewebsites.net", "cloudapp.azure.com", "cloudfunctions.net",
                "csb.app", "deno.dev", "elasticbeanstalk.com", "firebaseapp.com", "firebaseio.com", "fly.dev",
                "github.dev", "github.io", "gitlab.io", "gitpod.io", "glitch.me", "herokuapp.com", "koyeb.app",
                "netlify.app", "on.aws", "onrender.com", "pages.dev", "repl.co", "replit.app", "replit.dev", "run.app",
                "stackblitz.io", "surge.sh", "up.railway.app", "vercel.app", "web.app", "workers.dev",
            ]
        ),
        (
            .userContent,
            [
                "0x0.st", "1drv.ms", "api.telegram.org", "bitbucket.org", "blogspot.com", "catbox.moe", "codeberg.org",
                "docs.google.com", "dpaste.com", "dpaste.org", "drive.google.com", "dropbox.com",
                "dropboxusercontent.com", "file.io", "gist.github.com", "gist.githubusercontent.com", "github.com",
                "githubusercontent.com", "gitlab.com", "gofile.io", "googleusercontent.com", "hastebin.com",
                "huggingface.co", "imgur.com", "ix.io", "mega.nz", "notion.site", "onedrive.live.com", "paste.ee",
                "paste.rs", "pastebin.com", "rentry.co", "sharepoint.com", "telegra.ph", "termbin.com", "tmpfiles.org",
                "transfer.sh", "web.archive.org", "wetransfer.com", "wordpress.com",
            ]
        ),
        (
            .inbox,
            [
                "beeceptor.com", "burpcollaborator.net", "canarytokens.com", "discord.com", "discordapp.com",
                "dnslog.cn", "hookbin.com", "hooks.slack.com", "hooks.zapier.com", "interact.sh", "maker.ifttt.com",
                "ntfy.sh", "oast.fun", "oast.live", "oast.me", "oast.online", "oast.pro", "oast.site", "oastify.com",
                "pipedream.net", "pushover.net", "requestcatcher.com", "webhook.site",
            ]
        ),
        (
            .tunnel,
            [
                "bore.pub", "devtunnels.ms", "lhr.life", "loca.lt", "localhost.run", "localtunnel.me", "loclx.io",
                "ngrok-free.app", "ngrok-free.dev", "ngrok.app", "ngrok.dev", "ngrok.io", "pagekite.me", "pinggy.io",
                "pinggy.link", "serveo.net", "trycloudflare.com", "ts.net", "tunnelmole.com", "zrok.io",
            ]
        ),
        (
            .dynamicName,
            [
                "afraid.org", "ddns.net", "duckdns.org", "dyndns.org", "dynu.net", "hopto.org", "mooo.com", "nip.io",
                "sslip.io", "sytes.net", "traefik.me", "xip.io", "zapto.org",
            ]
        ),
        (
            .resolver,
            [
                "cloudflare-dns.com", "dns.adguard-dns.com", "dns.google", "dns.nextdns.io", "dns.quad9.net",
                "doh.opendns.com", "one.one.one.one",
            ]
        ),
    ]

    private static let kinds: [String: Kind] = {
        var kinds: [String: Kind] = [:]
        for (kind, names) in table { for name in names { kinds[name] = kind } }
        return kinds
    }()

    /// The kind of service that `name` is at or below, by the longest name that is listed; `nil` for others.
    public static func kind(of name: DomainName) -> Kind? {
        var ancestor: DomainName? = name
        while let current = ancestor {
            if let kind = kinds[current.description] { return kind }
            ancestor = current.parent
        }
        return nil
    }

    /// Whether `name` is listed and anybody can get a name right below it.
    static func sellsNames(below name: DomainName) -> Bool {
        // What webhook.site gives each visitor is a name as well.
        name.description == "webhook.site" || kinds[name.description]?.sellsNames == true
    }
}
