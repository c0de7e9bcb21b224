// swift-tools-version: 6.2
import PackageDescription

let package = Package(
    name: "sandgate",
    products: [.executable(name: "sandgate", targets: ["sandgate"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    ],
    targets: [
        // C: thin, no logic that could live in Swift.
        .target(name: "CLinux"),
        .systemLibrary(name: "CMnl", pkgConfig: "libmnl", providers: [.apt(["libmnl-dev"])]),
        .systemLibrary(name: "CNftnl", pkgConfig: "libnftnl", providers: [.apt(["libnftnl-dev"])]),
        .systemLibrary(name: "CAres", pkgConfig: "libcares", providers: [.apt(["libc-ares-dev"])]),

        // Values and judgement: no clock, no socket.
        .target(name: "NetPrimitives"),
        .target(name: "WireFormat", dependencies: ["NetPrimitives"]),
        .target(name: "EgressPolicy", dependencies: ["NetPrimitives"]),
        .target(name: "PolicyDocument", dependencies: ["EgressPolicy", "Yams"]),
        .target(name: "EgressCore", dependencies: ["WireFormat", "EgressPolicy"]),

        // The kernel's side.
        .target(name: "Reactor", dependencies: ["CLinux"]),
        .target(name: "Nftables", dependencies: ["NetPrimitives", "CLinux", "CMnl", "CNftnl"]),
        .target(name: "Namespaces", dependencies: ["NetPrimitives", "CLinux", "CMnl"]),
        .target(name: "Confinement", dependencies: ["CLinux"]),
        .target(name: "UpstreamDNS", dependencies: ["NetPrimitives", "Reactor", "CAres"]),

        // What runs.
        .target(
            name: "Datapath",
            dependencies: ["EgressCore", "Reactor", "Nftables", "UpstreamDNS"]),
        .target(
            name: "Audit",
            dependencies: ["EgressCore", .product(name: "Crypto", package: "swift-crypto")]),
        .target(
            name: "Sandboxes",
            dependencies: ["Datapath", "Nftables", "Namespaces", "Confinement", "Audit"]),
        .executableTarget(
            name: "sandgate",
            dependencies: [
                "Sandboxes", "PolicyDocument",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ]),

        .testTarget(name: "NetPrimitivesTests", dependencies: ["NetPrimitives"]),
        .testTarget(name: "WireFormatTests", dependencies: ["WireFormat"]),
        .testTarget(name: "EgressPolicyTests", dependencies: ["EgressPolicy"]),
        .testTarget(name: "PolicyDocumentTests", dependencies: ["PolicyDocument"]),
        .testTarget(name: "EgressCoreTests", dependencies: ["EgressCore"]),
        .testTarget(name: "ReactorTests", dependencies: ["Reactor"]),
        .testTarget(name: "NftablesTests", dependencies: ["Nftables", "Namespaces"]),
        .testTarget(name: "NamespacesTests", dependencies: ["Namespaces"]),
        .testTarget(name: "UpstreamDNSTests", dependencies: ["UpstreamDNS"]),
        .testTarget(name: "AuditTests", dependencies: ["Audit"]),
    ],
    swiftLanguageModes: [.v6]
)

let settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]
for target in package.targets where [.regular, .executable, .test].contains(target.type) && !target.name.hasPrefix("C") {
    target.swiftSettings = settings
}
