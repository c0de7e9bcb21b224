import CNftnl
import Glibc

/// A message that asks the kernel about the ruleset.
enum RulesetQuestion {
    /// NFT_MSG_GET… about things of `family` (NFPROTO_…), of every family by default; `flags` as NLM_F_DUMP. `describe` adds
    /// which ones.
    static func make(
        _ type: nf_tables_msg_types,
        family: UInt16 = UInt16(NFPROTO_UNSPEC),
        flags: UInt16 = 0,
        describe: (UnsafeMutablePointer<nlmsghdr>) -> Void = { _ in }
    ) -> [UInt8] {
        // Room for a header and two names of at most 256 bytes.
        withUnsafeTemporaryAllocation(byteCount: 1_024, alignment: 8) { buffer in
            let header = nftnl_nlmsg_build_hdr(
                buffer.baseAddress!.assumingMemoryBound(to: CChar.self),
                UInt16(type.rawValue),
                family,
                UInt16(NLM_F_REQUEST) | flags,
                0
            )!
            describe(header)
            return Array(buffer[..<Int(header.pointee.nlmsg_len)])
        }
    }
}
