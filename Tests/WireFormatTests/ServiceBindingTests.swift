import Testing
import WireFormat

@Suite struct ServiceBindingTests {
    let target = DNSBytes.name("svc.example")

    @Test func removesWhatHidesOrNamesAddresses() {
        let alpn = parameter(1, [2, 0x68, 0x32])
        let port = parameter(3, [0x20, 0xfb])
        let path = parameter(7, Array("/dns".utf8))
        let hint4 = parameter(4, [192, 0, 2, 1])
        let ech = parameter(5, Array(repeating: 9, count: 80))
        let hint6 = parameter(6, Array(repeating: 1, count: 16))
        let data = [0, 1] + target + alpn + port + hint4 + ech + hint6 + path
        #expect(ServiceBinding.sanitize(data) == [0, 1] + target + alpn + port + path)
    }

    @Test func leavesOthersAsTheyAre() {
        let alias = [0, 0] + target
        #expect(ServiceBinding.sanitize(alias) == alias)
        let root: [UInt8] = [0, 1, 0] + parameter(1, [2, 0x68, 0x32])
        #expect(ServiceBinding.sanitize(root) == root)
        let mandatory = [0, 1] + target + parameter(0, [0, 1]) + parameter(1, [2, 0x68, 0x32])
        #expect(ServiceBinding.sanitize(mandatory) == mandatory)
    }

    @Test(arguments: [4, 5, 6] as [UInt8]) func dropsRecordsThatNeedWhatIsRemoved(key: UInt8) {
        let needed = [0, 1] + target + parameter(0, [0, 1, 0, key]) + parameter(1, [2, 0x68, 0x32])
        #expect(ServiceBinding.sanitize(needed + parameter(UInt16(key), [1, 2, 3, 4])) == nil)
    }

    @Test func dropsMalformedRecords() {
        let malformed: [[UInt8]] = [
            [], [0], [0, 1], [0, 1] + target.dropLast(), [0, 1, 0xc0, 12],
            [0, 1] + target + [0], [0, 1] + target + [0, 1, 0], [0, 1] + target + [0, 1, 0, 5, 1],
            [0, 1] + target + parameter(3, [1]) + parameter(1, [2]),
            [0, 1] + target + parameter(5, [1]) + parameter(5, [2]),
            [0, 1] + target + parameter(0, []), [0, 1] + target + parameter(0, [0, 1, 0]),
        ]
        for data in malformed { #expect(ServiceBinding.sanitize(data) == nil, "\(data)") }
    }

    private func parameter(_ key: UInt16, _ value: [UInt8]) -> [UInt8] {
        [UInt8(key >> 8), UInt8(key & 0xff), UInt8(value.count >> 8), UInt8(value.count & 0xff)] + value
    }
}
