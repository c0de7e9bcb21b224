// swift-tools-version: 6.2
import PackageDescription

/// For our own C; deploy/build-static has the stacks of dependencies protected as well.
let hardening: [CSetting] = [
    .unsafeFlags(["-fstack-protector-strong"]),
    .define("_FORTIFY_SOURCE", to: "2", .when(configuration: .release)),
]

/// What the program calls in libraries is bound when it starts, so that the table of it can be read-only from then on. Swift
/// makes it position-independent, and asks for a stack that is not executable.
let boundAtOnce = LinkerSetting.unsafeFlags([
    "-Xlinker", "-z", "-Xlinker", "now", "-Xlinker", "-z", "-Xlinker", "relro",
])

let package = Package(
    name: "sandgate",
    products: [.executable(name: "sandgate", targets: ["sandgate"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1", traits: []),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: [
        // C: thin, no logic that could live in Swift. Swift takes what a header like sys/socket.h declares (SOCK_STREAM) from
        // whichever of these modules it met first; who uses it imports CLinux beside Glibc.
        .target(name: "CLinux", cSettings: hardening),
        .systemLibrary(name: "CMnl", pkgConfig: "libmnl", providers: [.apt(["libmnl-dev"])]),
        .systemLibrary(name: "CNftnl", pkgConfig: "libnftnl", providers: [.apt(["libnftnl-dev"])]),
        .systemLibrary(name: "CAres", pkgConfig: "libcares", providers: [.apt(["libc-ares-dev"])]),

        // Values and judgement: no clock, no socket.
        .target(name: "NetPrimitives"),
        .target(name: "WireFormat", dependencies: ["NetPrimitives"]),
        .target(name: "EgressPolicy", dependencies: ["NetPrimitives"]),
        .target(name: "PolicyDocument", dependencies: ["NetPrimitives", "EgressPolicy", "Yams"]),
        .target(name: "PolicyExchange", dependencies: ["NetPrimitives", "EgressPolicy", "PolicyDocument"]),
        // The files in policies/, as bytes in the program: it needs no files of its own.
        .target(
            name: "Presets",
            resources: [
                .embedInCode("../../policies/claude-code.yaml"),
                .embedInCode("../../policies/codex.yaml"),
                .embedInCode("../../policies/deny-all.yaml"),
                .embedInCode("../../policies/gemini-cli.yaml"),
                .embedInCode("../../policies/github.yaml"),
                .embedInCode("../../policies/hugging-face.yaml"),
                .embedInCode("../../policies/langgraph.yaml"),
                .embedInCode("../../policies/node-install.yaml"),
                .embedInCode("../../policies/qwen-code.yaml"),
            ]
        ),
        .target(name: "HostDetection", dependencies: ["CLinux", "FilePrimitives", "NetPrimitives", "EgressPolicy"]),
        .target(name: "EgressCore", dependencies: ["NetPrimitives", "WireFormat", "EgressPolicy"]),

        // The kernel's side.
        .target(name: "FilePrimitives"),
        .target(name: "Reactor", dependencies: ["CLinux", "NetPrimitives"]),
        .target(
            name: "Nftables",
            dependencies: [
                "CLinux", "CMnl", "CNftnl", "NetPrimitives", "Reactor",
                .product(name: "Crypto", package: "swift-crypto"),
            ]
        ),
        .target(name: "Namespaces", dependencies: ["CLinux", "CMnl", "FilePrimitives", "NetPrimitives"]),
        .target(name: "CConfinement", cSettings: hardening),
        .target(name: "Confinement", dependencies: ["CLinux", "FilePrimitives", "Namespaces", "CConfinement"]),
        .target(name: "UpstreamDNS", dependencies: ["CAres", "NetPrimitives", "Reactor"]),

        // What runs.
        .target(
            name: "Datapath",
            dependencies: [
                "NetPrimitives", "WireFormat", "EgressPolicy", "EgressCore", "Reactor", "Nftables", "UpstreamDNS",
            ]
        ),
        .target(
            name: "Audit",
            dependencies: [
                "FilePrimitives", "NetPrimitives", "EgressPolicy", "EgressCore",
                .product(name: "Crypto", package: "swift-crypto"),
            ]
        ),
        .target(
            name: "PolicySuggestion",
            dependencies: ["NetPrimitives", "EgressPolicy", "PolicyDocument", "Audit"]
        ),
        .target(
            name: "Sandboxes",
            dependencies: [
                "CLinux", "FilePrimitives", "NetPrimitives", "EgressPolicy", "PolicyDocument", "EgressCore", "Reactor",
                "Nftables", "Namespaces", "Confinement", "UpstreamDNS", "Datapath", "Audit",
            ]
        ),
        .target(
            name: "Webhook",
            dependencies: [
                "NetPrimitives", "EgressPolicy", "EgressCore", "Sandboxes",
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "Crypto", package: "swift-crypto"), .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"), .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ]
        ),
        .target(
            name: "Control",
            dependencies: [
                "CLinux", "NetPrimitives", "EgressPolicy", "PolicyDocument", "EgressCore", "Reactor", "Namespaces",
                "Datapath", "Audit", "Sandboxes", "Webhook",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HummingbirdCore", package: "hummingbird"),
                .product(name: "Logging", package: "swift-log"), .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"), .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ],
            resources: [
                .embedInCode("openapi.yaml"),
                .embedInCode("Page/page.html"),
                .embedInCode("Page/page.css"),
                .embedInCode("Page/page.js"),
            ]
        ),
        .executableTarget(
            name: "sandgate",
            dependencies: [
                "CLinux", "FilePrimitives", "NetPrimitives", "EgressPolicy", "PolicyDocument", "PolicyExchange",
                "Presets", "HostDetection", "EgressCore", "Reactor", "Namespaces", "Confinement", "UpstreamDNS",
                "Datapath",
                "Audit", "PolicySuggestion", "Sandboxes", "Webhook", "Control", "Yams",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ],
            linkerSettings: [boundAtOnce]
        ),

        // No product: deploy/benchmark builds it, and nobody installs it.
        .executableTarget(
            name: "sandgate-benchmark",
            dependencies: ["NetPrimitives", "WireFormat", "EgressPolicy", "EgressCore", "Nftables"],
            path: "Tests/Benchmarks/InProcess"
        ),

        .testTarget(name: "NetPrimitivesTests", dependencies: ["NetPrimitives"]),
        .testTarget(name: "WireFormatTests", dependencies: ["NetPrimitives", "WireFormat"]),
        .testTarget(name: "EgressPolicyTests", dependencies: ["NetPrimitives", "EgressPolicy"]),
        .testTarget(name: "PolicyDocumentTests", dependencies: ["NetPrimitives", "EgressPolicy", "PolicyDocument"]),
        .testTarget(
            name: "PolicyExchangeTests",
            dependencies: ["NetPrimitives", "EgressPolicy", "PolicyDocument", "PolicyExchange"]
        ),
        .testTarget(
            name: "PresetsTests",
            dependencies: ["NetPrimitives", "EgressPolicy", "PolicyDocument", "Presets"]
        ),
        .testTarget(name: "HostDetectionTests", dependencies: ["NetPrimitives", "EgressPolicy", "HostDetection"]),
        .testTarget(
            name: "EgressCoreTests",
            dependencies: ["NetPrimitives", "WireFormat", "EgressPolicy", "EgressCore"]
        ),
        .testTarget(name: "ReactorTests", dependencies: ["NetPrimitives", "Reactor"]),
        .testTarget(
            name: "NftablesTests",
            dependencies: ["CLinux", "NetPrimitives", "Reactor", "Nftables", "Namespaces"]
        ),
        .testTarget(
            name: "NamespacesTests",
            dependencies: ["CLinux", "FilePrimitives", "NetPrimitives", "Namespaces"]
        ),
        .testTarget(name: "FilePrimitivesTests", dependencies: ["FilePrimitives"]),
        .testTarget(
            name: "ConfinementTests",
            dependencies: ["CLinux", "FilePrimitives", "Namespaces", "CConfinement", "Confinement"]
        ),
        .testTarget(name: "UpstreamDNSTests", dependencies: ["NetPrimitives", "Reactor", "UpstreamDNS"]),
        .testTarget(
            name: "DatapathTests",
            dependencies: [
                "CLinux", "NetPrimitives", "WireFormat", "EgressPolicy", "EgressCore", "Reactor", "Nftables",
                "Namespaces", "UpstreamDNS", "Datapath",
            ]
        ),
        .testTarget(name: "SandboxesTests", dependencies: ["NetPrimitives", "PolicyDocument", "Sandboxes"]),
        .testTarget(
            name: "WebhookTests",
            dependencies: [
                "NetPrimitives", "EgressPolicy", "EgressCore", "Webhook",
                .product(name: "Crypto", package: "swift-crypto"), .product(name: "Logging", package: "swift-log"),
            ]
        ),
        .testTarget(name: "ControlTests", dependencies: ["Datapath", "Sandboxes", "Webhook", "Control"]),
        .testTarget(
            name: "PolicySuggestionTests",
            dependencies: [
                "NetPrimitives", "EgressPolicy", "PolicyDocument", "EgressCore", "Audit", "PolicySuggestion",
            ]
        ),
        .testTarget(
            name: "AuditTests",
            dependencies: [
                "NetPrimitives", "EgressPolicy", "PolicyDocument", "EgressCore", "Audit",
                .product(name: "Crypto", package: "swift-crypto"),
            ]
        ),
    ],
    swiftLanguageModes: [.v6]
)

// What deploy/fuzz builds, with flags of its own and beside everything else.
if Context.environment["SANDGATE_FUZZ"] != nil {
    package.targets.append(
        .executableTarget(
            name: "sandgate-fuzz",
            dependencies: [
                "NetPrimitives", "WireFormat", "EgressPolicy", "PolicyDocument", "PolicyExchange", "EgressCore",
                "Nftables", "Audit", "Sandboxes",
            ],
            path: "Tests/Fuzz/Targets",
            swiftSettings: [.enableExperimentalFeature("Extern")]
        )
    )
}

var settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]
// In CI; not for those who build with a newer compiler, which may warn of something new.
if Context.environment["SANDGATE_WARNINGS_AS_ERRORS"] != nil {
    settings.append(.treatAllWarnings(as: .error))
}
let inC: Set = ["CLinux", "CConfinement", "CMnl", "CNftnl", "CAres"]
for target in package.targets where !inC.contains(target.name) {
    target.swiftSettings = (target.swiftSettings ?? []) + settings
}

// Exclusivity checks took 42 % of the reactor's instructions when measured. Its classes are confined to one thread, and
// debug builds, so the tests too, keep the checks.
for target in package.targets where target.name == "Reactor" {
    target.swiftSettings?.append(.unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release)))
}
