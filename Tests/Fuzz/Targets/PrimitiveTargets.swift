import EgressCore
import EgressPolicy
import Glibc
import NetPrimitives

extension FuzzTarget {
    /// Names, addresses, prefixes, ports, times and targets, each written back and read again; addresses as the C
    /// library reads them.
    static let primitives = FuzzTarget(name: "primitives") { bytes in
        if let name = try? DomainName(ascii: bytes) {
            require((try? DomainName(ascii: name.bytes)) == name, "\(name) is not canonical")
            require(name.labels.joined(separator: [46]).elementsEqual(name.bytes), "\(name) has other labels")
            require(name.parent.map { name.isBelow($0) } ?? true, "\(name) is not below its parent")
            _ = IPAddress(reverseName: name)
        }
        checkAddress(bytes)
        let text = String(decoding: bytes, as: UTF8.self)
        if let prefix = try? IPPrefix(parsing: text) {
            require((try? IPPrefix(parsing: "\(prefix)")) == prefix, "\(prefix) is read back as something else")
            require(prefix.contains(prefix.first) && prefix.contains(prefix.last), "\(prefix) does not hold its ends")
        }
        if let ports = PortRange(parsing: text) {
            require(PortRange(parsing: "\(ports)") == ports, "\(ports) is read back as something else")
        }
        if let time = Timestamp.time(parsing: bytes) {
            let again = Timestamp.time(parsing: Timestamp.text(of: time).utf8)
            let years = (-62_167_219_200_000_000 as Int64)..<253_402_300_800_000_000
            require(again == time || !years.contains(time.microseconds), "\(time) is read back as something else")
        }
        do throws(TargetError) {
            let target = try Target(parsing: text)
            require((try? Target(parsing: "\(target)")) == target, "\(target) is read back as something else")
        } catch {
            require(!error.description.isEmpty, "refused without a reason")
        }
    }

    /// Our address is the C library's: what it takes and we do not, another program might.
    private static func checkAddress(_ bytes: [UInt8]) {
        let address = IPAddress(ascii: bytes)
        if let address {
            require(IPAddress(address.description) == address, "\(address) is read back as something else")
            require(IPAddress(networkBytes: address.networkBytes) == address, "\(address) has other bytes")
            _ = address.embeddedIPv4
        }
        guard !bytes.contains(0), bytes.count < 64 else {
            require(address == nil, "an address of these bytes")
            return
        }
        var four = in_addr()
        var six = in6_addr()
        let text = bytes.map { CChar(bitPattern: $0) } + [0]
        var theirs: IPAddress?
        if inet_pton(AF_INET, text, &four) == 1 {
            theirs = withUnsafeBytes(of: four) { IPAddress(networkBytes: $0) }
        } else if inet_pton(AF_INET6, text, &six) == 1 {
            theirs = withUnsafeBytes(of: six) { IPAddress(networkBytes: $0) }
        }
        require(address == theirs, "\(String(describing: address)), to others \(String(describing: theirs))")
    }
}
