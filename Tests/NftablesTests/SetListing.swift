import Foundation
import NetPrimitives
import Testing

/// What nft(8) says of the elements of a set of table inet sandgate.
enum SetListing {
    struct Pin: Equatable {
        let comment: String?
        let timeout: Int
        let expires: Int
    }

    /// Addresses with a timeout.
    static func pins(_ set: String) throws -> [IPAddress: Pin] {
        var result: [IPAddress: Pin] = [:]
        for entry in try elements(set) {
            let element = try #require((entry as? [String: Any])?["elem"] as? [String: Any])
            let address = try #require(IPAddress(element["val"] as? String ?? ""))
            result[address] = Pin(
                comment: element["comment"] as? String,
                timeout: element["timeout"] as? Int ?? -1,
                expires: element["expires"] as? Int ?? -1
            )
        }
        return result
    }

    /// Intervals, in nft's order.
    static func intervals(_ set: String) throws -> [ClosedRange<IPAddress>] {
        try elements(set).map { entry in
            if let text = entry as? String {
                let address = try #require(IPAddress(text))
                return address...address
            }
            let object = try #require(entry as? [String: Any])
            if let prefix = object["prefix"] as? [String: Any] {
                let address = try #require(IPAddress(prefix["addr"] as? String ?? ""))
                let block = IPPrefix(address, length: try #require(prefix["len"] as? Int))
                return block.first...block.last
            }
            let bounds = try #require(object["range"] as? [String])
            return try #require(IPAddress(bounds[0]))...(try #require(IPAddress(bounds[1])))
        }
    }

    private static func elements(_ set: String) throws -> [Any] {
        let text = try shell("nft -j list set inet sandgate \(set)")
        let listing = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        let objects = try #require(listing["nftables"] as? [[String: Any]])
        let object = try #require(objects.compactMap { $0["set"] as? [String: Any] }.first)
        return object["elem"] as? [Any] ?? []
    }
}
