internal import CLinux
internal import CMnl

/// One rtnetlink request under construction, in a buffer of its own (rtnetlink(7)).
final class RouteMessage {
    /// The largest request, in bytes; ours stay below 300.
    private static let capacity = 2048

    /// What the request does, for errors: `cannot create veth pair`.
    let operation: String
    /// The message header at the start of the buffer.
    let header: UnsafeMutablePointer<nlmsghdr>
    private let buffer: UnsafeMutableRawPointer

    /// Starts a request of `type` (`RTM_NEWLINK`…) with NLM_F_REQUEST, NLM_F_ACK and `flags`; `payload` is the fixed
    /// structure that the type begins with (`ifinfomsg`, `rtmsg`…).
    init<Payload>(_ operation: String, type: Int, flags: Int32 = 0, payload: Payload) {
        self.operation = operation
        buffer = .allocate(byteCount: Self.capacity, alignment: 8)
        header = mnl_nlmsg_put_header(buffer)
        header.pointee.nlmsg_type = UInt16(type)
        header.pointee.nlmsg_flags = UInt16(NLM_F_REQUEST | NLM_F_ACK | flags)
        append(payload: payload)
    }

    deinit {
        buffer.deallocate()
    }

    private func append<Payload>(payload: Payload) {
        let place = mnl_nlmsg_put_extra_header(header, MemoryLayout<Payload>.size)!
        withUnsafeBytes(of: payload) { place.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    }

    /// Appends an attribute that holds bytes.
    func put(_ attribute: Int, bytes: [UInt8]) {
        bytes.withUnsafeBytes {
            check(mnl_attr_put_check(header, Self.capacity, UInt16(attribute), $0.count, $0.baseAddress))
        }
    }

    /// Appends an attribute that holds a number in host order.
    func put(_ attribute: Int, _ number: UInt32) {
        check(mnl_attr_put_u32_check(header, Self.capacity, UInt16(attribute), number))
    }

    /// Appends an attribute that holds NUL-terminated text.
    func put(_ attribute: Int, text: String) {
        check(mnl_attr_put_strz_check(header, Self.capacity, UInt16(attribute), text))
    }

    /// Appends an attribute that holds what `body` appends.
    func nest(_ attribute: Int, _ body: () -> Void) {
        guard let start = mnl_attr_nest_start_check(header, Self.capacity, UInt16(attribute)) else {
            return check(false)
        }
        body()
        mnl_attr_nest_end(header, start)
    }

    /// Appends an attribute that holds a fixed structure and then what `body` appends, as VETH_INFO_PEER does.
    func nest<Payload>(_ attribute: Int, payload: Payload, _ body: () -> Void) {
        nest(attribute) {
            append(payload: payload)
            body()
        }
    }

    private func check(_ fits: Bool) {
        precondition(fits, "a route message is larger than its buffer")
    }
}
