import Glibc
public import NetPrimitives

extension UpstreamResolver {
    /// The servers that the system's own resolver asks: the `nameserver` lines of resolv.conf(5), in order, port 53.
    /// Addresses with a zone are left out. Empty when there are none or the file cannot be read.
    public static func systemServers(path: String = "/etc/resolv.conf") -> [Endpoint] {
        servers(inConfiguration: contents(of: path))
    }

    static func servers(inConfiguration bytes: [UInt8]) -> [Endpoint] {
        bytes.split(separator: UInt8(ascii: "\n")).compactMap { line in
            // A comment begins the line; the keyword does too, by resolv.conf(5).
            let words = line.split { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\t") || $0 == UInt8(ascii: "\r") }
            guard line.starts(with: "nameserver".utf8), words.count >= 2, words[0].elementsEqual("nameserver".utf8),
                let address = IPAddress(ascii: words[1])
            else { return nil }
            return Endpoint(address, 53)
        }
    }

    /// At most 64 KiB of a file; empty when it cannot be read.
    private static func contents(of path: String) -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return [] }
        defer { _ = Glibc.close(descriptor) }
        var bytes: [UInt8] = []
        while bytes.count < 64 * 1024 {
            let chunk = [UInt8](unsafeUninitializedCapacity: 4_096) { buffer, count in
                count = max(read(descriptor, buffer.baseAddress, buffer.count), 0)
            }
            if chunk.isEmpty { break }
            bytes += chunk
        }
        return bytes
    }
}
