import CLinux
import Confinement
import FilePrimitives
import Glibc
import Namespaces
import NetPrimitives
import Nftables
import Reactor

/// Tries, with throw-away namespaces, each thing that a sandbox needs of the kernel: what works is told by doing it, not
/// by a version. Leaves nothing behind.
public struct KernelExamination {
    private static let namespaces = "namespaces"
    private static let table = "nftables"
    private static let redirect = "redirects"
    private static let log = "refusal log"
    private static let ipv6 = "IPv6"
    private static let conntrack = "conntrack"
    private static let confinement = "confinement"

    private static let nflogGroup: UInt16 = 64
    /// Documentation addresses (RFC 5737, RFC 3849): pinned, and not pinned.
    private static let pinned = [IPAddress("192.0.2.1")!, IPAddress("2001:db8::1")!]
    private static let refused = Endpoint(IPAddress("198.51.100.1")!, 9)

    /// Everything, in the order in which a sandbox needs it.
    public static func findings() -> [Finding] {
        let network: SandboxNetwork
        do {
            network = try SandboxNetwork.make()
        } catch {
            let untried = [table, redirect, log, confinement].map {
                Finding($0, .untried, "there is no namespace to try in")
            }
            let cause = "\(error.operation): \(String(cString: strerror(error.errno)))"
            return [Finding(namespaces, .missing, cause, remedy: remedy(for: error))] + untried
        }
        var findings = [
            Finding(namespaces, .works, "a network namespace with a veth pair was made"),
            network.hasIPv6
                ? Finding(ipv6, .works, "the sandbox has both families")
                : Finding(
                    ipv6,
                    .missing,
                    "the kernel does not speak it: a sandbox has IPv4 alone",
                    remedy: "nothing, unless you need it: start the kernel without ipv6.disable=1",
                    isOptional: true
                ),
        ]
        findings += (try? network.namespace.enter { enforcement(hasIPv6: network.hasIPv6) }) ?? []
        findings.append(confined(in: network.namespace, of: nil))
        return findings
    }
}

// MARK: - Enforcement

extension KernelExamination {
    /// Runs inside the namespace.
    private static func enforcement(hasIPv6: Bool) -> [Finding] {
        let sandboxTable: SandboxTable
        do {
            sandboxTable = SandboxTable(netlink: try NetlinkSocket(), ports: Sandbox.ports, nflogGroup: nflogGroup)
            try sandboxTable.closeDoor()
        } catch {
            let remedy =
                "load nf_tables with its nat, log, reject and ct expressions: modprobe nf_tables nft_redir nft_ct "
                + "nft_log nft_reject_inet nft_chain_nat, or install the distribution's full kernel"
            return [Finding(table, .missing, "\(error)", remedy: remedy)]
                + [redirect, log].map { Finding($0, .untried, "there is no table") } + [connectionTracking()]
        }
        let owned =
            sandboxTable.hasOwner
            ? "a table was made, with an owner that outlives its process"
            : "a table was made, without an owner: kernels before 6.9 do not know owner and persist together"
        return [
            Finding(table, .works, owned),
            redirection(through: sandboxTable, hasIPv6: hasIPv6),
            refusal(),
            connectionTracking(),
        ]
    }

    /// A connection to a pinned address must arrive here, and say where it was going.
    private static func redirection(through table: SandboxTable, hasIPv6: Bool) -> Finding {
        let loopbacks = [IPAddress(v4: 0x7f00_0001), IPAddress(v6: 1)]
        do {
            try table.installRedirects()
            for (address, loopback) in zip(pinned, loopbacks) where hasIPv6 || address.family == .v4 {
                try table.pin([(address, timeoutSeconds: 60, name: try DomainName("doctor.example"))])
                let listener = try Sockets.tcpListener(Endpoint(loopback, Sandbox.ports.proxy), backlog: 1)
                defer { Sockets.close(listener) }
                let target = Endpoint(address, 80)
                let client = socket(address.family == .v4 ? AF_INET : AF_INET6, CInt(SOCK_STREAM.rawValue), 0)
                defer { Sockets.close(client) }
                let failure = Sockets.connect(client, to: target)
                guard failure == 0 else {
                    return Finding(
                        redirect,
                        .missing,
                        "a connection to \(target) did not arrive: \(String(cString: strerror(failure)))",
                        remedy: natRemedy
                    )
                }
                guard case .accepted(let accepted, _) = Sockets.accept(listener) else {
                    return Finding(redirect, .missing, "a connection to \(target) did not arrive", remedy: natRemedy)
                }
                defer { Sockets.close(accepted) }
                guard Sockets.originalDestination(accepted, address.family) == target else {
                    return Finding(
                        redirect,
                        .missing,
                        "the kernel does not say where a redirected connection was going",
                        remedy: natRemedy
                    )
                }
            }
        } catch {
            return Finding(redirect, .missing, "\(error)", remedy: natRemedy)
        }
        return Finding(redirect, .works, "a redirected connection arrived and said where it was going")
    }

    private static let natRemedy =
        "load nf_nat and nft_redir: modprobe nft_chain_nat nft_redir, or install the distribution's full kernel"

    /// A connection that nothing allows must be refused at once, and the refusal be told.
    private static func refusal() -> Finding {
        let remedy = "load nfnetlink_log and nft_log: modprobe nfnetlink_log nft_log"
        do {
            let refusals = try RefusalLog(group: nflogGroup)
            let client = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
            defer { Sockets.close(client) }
            let outcome = Sockets.connect(client, to: refused)
            guard outcome == ECONNREFUSED else {
                let what = outcome == 0 ? "it went through" : String(cString: strerror(outcome))
                return Finding(log, .missing, "a connection was not refused: \(what)", remedy: remedy)
            }
            var source = pollfd(fd: refusals.descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&source, 1, 2_000) == 1, try !refusals.read().isEmpty else {
                return Finding(log, .missing, "the kernel does not tell what it refused", remedy: remedy)
            }
        } catch {
            return Finding(log, .missing, "\(error)", remedy: remedy)
        }
        return Finding(log, .works, "a connection was refused at once, and the kernel told")
    }

    /// Asks for all of the namespace's connections, as finding out where a datagram was going does.
    private static func connectionTracking() -> Finding {
        let failure = clinux_probe_conntrack()
        guard failure != 0 else { return Finding(conntrack, .works, "the kernel lists connections") }
        return Finding(
            conntrack,
            .missing,
            "the kernel does not list connections: \(String(cString: strerror(failure)))",
            remedy: "load nf_conntrack_netlink: modprobe nf_conntrack_netlink. Needed for UDP by rule",
            isOptional: true
        )
    }
}

// MARK: - Confinement

extension KernelExamination {
    /// Runs a command as `run` does.
    static func confined(in namespace: NetworkNamespace, of user: UserNamespace?) -> Finding {
        var configuration = ConfinedCommand.Configuration(
            arguments: ["/bin/sh", "-c", "exit 7"],
            environment: ["PATH=/usr/bin:/bin"],
            networkNamespace: namespace.descriptor,
            resolvConf: Array("nameserver 127.0.0.1\n".utf8)
        )
        configuration.userNamespace = user?.descriptor
        let null = open("/dev/null", O_RDWR | O_CLOEXEC)
        defer { close(null) }
        configuration.standardDescriptors = (null, null, null)
        let usualRemedy =
            "allow mount, pid and network namespaces and seccomp: in a container, run it with "
            + "--cap-add SYS_ADMIN,NET_ADMIN,SETPCAP --security-opt seccomp=unconfined,apparmor=unconfined"
        do {
            let process = try ConfinedCommand.spawn(configuration)
            try process.release()
            let status = process.wait()
            guard status.code == 7 else {
                let detail = "a confined command ended with \(status.code)"
                return Finding(confinement, .missing, detail, remedy: usualRemedy)
            }
        } catch {
            return Finding(
                confinement,
                .missing,
                error.cause,
                remedy: error.remedy.isEmpty ? usualRemedy : error.remedy
            )
        }
        return Finding(
            confinement,
            .works,
            "a command ran in namespaces of its own, under seccomp, without capabilities"
        )
    }

    private static func remedy(for error: NamespaceError) -> String {
        switch error.errno {
        case EPERM, EACCES:
            "run it as root; in a container, with --cap-add SYS_ADMIN,NET_ADMIN,SETPCAP "
                + "--security-opt seccomp=unconfined,apparmor=unconfined"
        case ENOSPC: error.detail
        case EOPNOTSUPP, ENOENT, ENODEV: "load veth: modprobe veth, or install the distribution's full kernel"
        default: "run it on a kernel with network namespaces (CONFIG_NET_NS) and veth (CONFIG_VETH)"
        }
    }
}
