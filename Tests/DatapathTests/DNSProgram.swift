import CLinux
import Foundation
import Glibc
import NetPrimitives
import Testing
import WireFormat

/// What a program in a sandbox does to ask for names: blocking sockets, whatever server it likes.
enum DNSProgram {
    static let someServer = Endpoint(IPAddress("192.0.2.53")!, 53)
    static let someServer6 = Endpoint(IPAddress("2001:db8::53")!, 53)

    /// A query with EDNS.
    static func query(_ name: String, _ type: DNSRecordType = .a, id: UInt16 = 7) -> [UInt8] {
        [UInt8(id >> 8), UInt8(id & 0xff), 1, 0, 0, 1, 0, 0, 0, 0, 0, 1] + DNSWireName(try! DomainName(name)).bytes
            + [UInt8(type.rawValue >> 8), UInt8(type.rawValue & 0xff), 0, 1] + [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]
    }

    /// Asks over UDP and waits for the answer.
    static func ask(_ name: String, _ type: DNSRecordType = .a, of server: Endpoint = someServer) throws -> DNSMessage {
        let socket = try BlockingSocket(.datagram, to: server)
        try socket.send(query(name, type))
        return try DNSMessage(decoding: try socket.receive(upTo: 4_096))
    }
}

/// A connected socket whose calls give up after some seconds.
final class BlockingSocket {
    enum Kind {
        case datagram
        case stream
    }

    private let descriptor: CInt

    init(_ kind: Kind, to endpoint: Endpoint, seconds: Int = 5) throws {
        let isV4 = endpoint.address.family == .v4
        let type = kind == .datagram ? SOCK_DGRAM : SOCK_STREAM
        descriptor = socket(isV4 ? AF_INET : AF_INET6, CInt(type.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw Failure(call: "socket", code: errno) }
        var patience = timeval(tv_sec: seconds, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        var bytes = [UInt8](repeating: 0, count: isV4 ? 16 : 28)
        let family = UInt16(isV4 ? AF_INET : AF_INET6)
        bytes[0] = UInt8(family & 0xff)
        bytes[2] = UInt8(endpoint.port >> 8)
        bytes[3] = UInt8(endpoint.port & 0xff)
        let address = endpoint.address.networkBytes
        bytes.replaceSubrange((isV4 ? 4 : 8)..<((isV4 ? 4 : 8) + address.count), with: address)
        let status = bytes.withUnsafeBytes { buffer in
            connect(descriptor, buffer.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t(buffer.count))
        }
        guard status == 0 else { throw Failure(call: "connect", code: errno) }
    }

    deinit { close(descriptor) }

    struct Failure: Error {
        let call: String
        let code: CInt
    }

    func send(_ bytes: [UInt8]) throws {
        guard Glibc.send(descriptor, bytes, bytes.count, CInt(MSG_NOSIGNAL)) == bytes.count else {
            throw Failure(call: "send", code: errno)
        }
    }

    func endOutput() {
        shutdown(descriptor, CInt(SHUT_WR))
    }

    /// What comes next; empty when the peer has ended.
    func receive(upTo limit: Int) throws -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: limit)
        let count = recv(descriptor, &buffer, limit, 0)
        guard count >= 0 else { throw Failure(call: "recv", code: errno) }
        return Array(buffer.prefix(count))
    }

    /// The next message of a DNS stream.
    func receiveMessage() throws -> [UInt8] {
        let head = try receive(exactly: 2)
        return try receive(exactly: Int(head[0]) << 8 | Int(head[1]))
    }

    private func receive(exactly count: Int) throws -> [UInt8] {
        var received: [UInt8] = []
        while received.count < count {
            let more = try receive(upTo: count - received.count)
            guard !more.isEmpty else { throw Failure(call: "recv ended", code: 0) }
            received += more
        }
        return received
    }
}

/// What a set of the sandbox's table holds, as nft(8) says; in the sandbox's network.
func list(_ set: String) throws -> String {
    try shell("nft list set inet sandgate \(set)")
}

/// Runs a command line in the calling thread's network and returns what it printed.
@discardableResult
func shell(_ command: String) throws -> String {
    guard let stream = popen("exec 2>&1\n" + command, "re") else {
        throw BlockingSocket.Failure(call: "popen", code: errno)
    }
    var output: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while case let count = fread(&buffer, 1, buffer.count, stream), count > 0 { output += buffer[..<count] }
    guard pclose(stream) == 0 else { throw BlockingSocket.Failure(call: command, code: 0) }
    return String(decoding: output, as: UTF8.self)
}
