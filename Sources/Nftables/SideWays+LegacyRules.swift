import CLinux
import CNftnl
import Glibc

/// Tables of iptables(8) that nftables knows nothing of (`iptables-legacy`), and those of IPVS.
extension SideWays {
    private static let families: [(number: CInt, names: String, program: String)] = [
        (AF_INET, "ip_tables_names", "iptables-legacy"), (AF_INET6, "ip6_tables_names", "ip6tables-legacy"),
    ]

    /// What such rules in the calling thread's namespace do to packets.
    func legacyRules() throws(NetlinkError) -> [SidePath] {
        var found: [SidePath] = []
        for family in Self.families {
            for table in try Self.lines(of: family.names) {
                for target in try targets(of: table, family.number) {
                    found.append(
                        SidePath(
                            what: "a rule of \(family.program) in table \(table) with target \(target)",
                            remedy: "\(family.program) -t \(table) -F"
                        )
                    )
                }
            }
        }
        // A heading of three lines, then a line for each virtual service and server.
        if try Self.lines(of: "ip_vs").count > 3 {
            found.append(SidePath(what: "virtual services of IPVS", remedy: "ipvsadm -C"))
        }
        return found
    }

    /// The lines of a file of the namespace below /proc/net; none where the kernel has no such file, or it is root's alone and we
    /// are not root, as a sidecar need not be. What the old rules do comes before ours, or is sent by them as anything else is:
    /// none has been seen to get past.
    private static func lines(of name: String) throws(NetlinkError) -> [String] {
        let path = "/proc/thread-self/net/\(name)"
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else {
            guard errno == ENOENT || errno == EACCES else {
                throw NetlinkError(operation: "open \(path)", errno: errno)
            }
            return []
        }
        defer { close(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4_096)
        while true {
            let count = read(file, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw NetlinkError(operation: "read \(path)", errno: errno) }
            guard count > 0, bytes.count < 1 << 20 else { break }
            bytes += buffer.prefix(count)
        }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n").map(String.init)
    }

    /// The targets of a table's rules that do more to a packet than let it go on or not, each once.
    private func targets(of table: String, _ family: CInt) throws(NetlinkError) -> [String] {
        let descriptor = socket(family, CInt(SOCK_DGRAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw NetlinkError(operation: "open a socket", errno: errno) }
        defer { close(descriptor) }
        for _ in 0..<Self.attempts {
            var information = clinux_legacy_table()
            guard clinux_legacy_table(descriptor, family, table, &information) == 0 else {
                // A table that has gone.
                if errno == ENOENT { return [] }
                throw NetlinkError(operation: "look at table \(table) of iptables", errno: errno)
            }
            guard information.size <= Self.mostBytes else {
                throw NetlinkError(operation: "list table \(table) of iptables", errno: E2BIG)
            }
            var bytes = [UInt8](repeating: 0, count: Int(information.size))
            guard clinux_legacy_rules(descriptor, family, table, &bytes, information.size) == 0 else {
                if errno == EAGAIN { continue }
                throw NetlinkError(operation: "list table \(table) of iptables", errno: errno)
            }
            return targets(in: bytes, family)
        }
        throw NetlinkError(operation: "list table \(table) of iptables", errno: EAGAIN)
    }

    private static let attempts = 16
    private static let mostBytes: UInt32 = 64 << 20

    private func targets(in bytes: [UInt8], _ family: CInt) -> [String] {
        var (found, start): ([String], Int) = ([], 0)
        func number(_ offset: Int) -> Int? {
            guard offset + 2 <= bytes.count else { return nil }
            return Int(bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: UInt16.self) })
        }
        while start < bytes.count {
            guard let target = number(start + clinux_legacy_target_offset(family)),
                let length = number(start + clinux_legacy_next_offset(family)), length > target,
                start + length <= bytes.count
            else { return found + ["unknown"] }
            // struct xt_entry_target: its length, its name, its revision.
            let name = String(
                decoding: bytes[(start + target)..<(start + length)].dropFirst(2).prefix(29).prefix { $0 != 0 },
                as: UTF8.self
            )
            let isForDocker = family == AF_INET && Self.isForDocker(bytes[start..<(start + target)])
            if !isAllowed(target: name, isForDocker: isForDocker), !found.contains(name) { found.append(name) }
            start += length
        }
        return found
    }

    /// `-d 127.0.0.11/32` or `-s 127.0.0.11/32`, of a struct ipt_entry, which begins with both addresses and both masks.
    private static func isForDocker(_ rule: ArraySlice<UInt8>) -> Bool {
        let bytes = Array(rule.prefix(84))
        // invflags, at the end of struct ipt_ip.
        guard bytes.count == 84, bytes[83] == 0 else { return false }
        let (addresses, masks) = ([bytes[0..<4], bytes[4..<8]], [bytes[8..<12], bytes[12..<16]])
        return zip(addresses, masks).contains { Array($0) == [127, 0, 0, 11] && Array($1) == [255, 255, 255, 255] }
    }
}
