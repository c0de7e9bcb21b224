internal import Glibc

/// The devices of the calling thread's network namespace, but for the loopback.
public func outerDevices() -> [(name: String, index: UInt32)] {
    guard let list = if_nameindex() else { return [] }
    defer { if_freenameindex(list) }
    var devices: [(name: String, index: UInt32)] = []
    var next = list
    while next.pointee.if_index != 0 {
        let name = String(cString: next.pointee.if_name)
        if name != "lo" { devices.append((name, next.pointee.if_index)) }
        next += 1
    }
    return devices
}
