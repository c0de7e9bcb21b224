internal import CLinux
internal import Glibc
internal import NetPrimitives

/// Has IPv6 addresses and default routes stay that a router told the calling thread's network namespace of for a time only.
///
/// On tap devices alone, whose other end is one program (slirp4netns, pasta) that says the same for as long as it lives:
/// behind rules that keep advertisements out, IPv6 would end half an hour after the last. Elsewhere others are on the link,
/// and what is out of date there has to end.
public func keepAdvertisedIPv6() throws(NamespaceError) {
    for (device, _) in outerDevices() where access("/sys/class/net/\(device)/tun_flags", F_OK) == 0 {
        let link = try Link(named: device)
        for found in AdvertisedAddress.all() where found.device == device {
            try link.keep(address: found.address, prefixLength: found.prefixLength)
        }
        for found in AdvertisedRoute.all() where found.device == device {
            try link.keepDefaultRoute(via: found.gateway, metric: found.metric)
        }
    }
}

/// An IPv6 address that ends some time.
private struct AdvertisedAddress {
    let device: String
    let address: IPAddress
    let prefixLength: UInt8

    /// A line of /proc/net/if_inet6: address, number of the device, length of the prefix, scope, flags, device.
    private init?(_ line: Substring) {
        let fields = line.split(separator: " ")
        guard fields.count == 6, let address = UInt128(fields[0], radix: 16), let length = UInt8(fields[2], radix: 16),
            let flags = UInt32(fields[4], radix: 16), flags & UInt32(IFA_F_PERMANENT) == 0
        else { return nil }
        (device, self.address, prefixLength) = (String(fields[5]), IPAddress(v6: address), length)
    }

    static func all() -> [AdvertisedAddress] {
        let table = KernelSetting.contents(of: "/proc/thread-self/net/if_inet6") ?? ""
        return table.split(separator: "\n").compactMap(Self.init)
    }
}

/// An IPv6 default route that ends some time.
private struct AdvertisedRoute {
    let device: String
    let gateway: IPAddress
    let metric: UInt32

    /// RTF_EXPIRES of linux/ipv6_route.h.
    private static let ends: UInt32 = 0x0040_0000

    /// A line of /proc/net/ipv6_route: destination and its prefix, source and its prefix, gateway, metric, two counters,
    /// flags, device.
    private init?(_ line: Substring) {
        let fields = line.split(separator: " ")
        guard fields.count == 10, UInt128(fields[0], radix: 16) == 0, fields[1] == "00", fields[3] == "00",
            let gateway = UInt128(fields[4], radix: 16), gateway != 0, let metric = UInt32(fields[5], radix: 16),
            let flags = UInt32(fields[8], radix: 16), flags & Self.ends != 0
        else { return nil }
        (device, self.gateway, self.metric) = (String(fields[9]), IPAddress(v6: gateway), metric)
    }

    static func all() -> [AdvertisedRoute] {
        let table = KernelSetting.contents(of: "/proc/thread-self/net/ipv6_route") ?? ""
        return table.split(separator: "\n").compactMap(Self.init)
    }
}
