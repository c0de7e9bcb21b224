public import NetPrimitives

/// The addresses admitted for names, and how long each admission holds.
///
///     resolved ──▶ fresh: max(TTL, 5 min) ──▶ grace: 1 h, renewed by connections ──▶ gone
///                  any connection              TCP that carries the name,
///                  the name's rule covers      dialled to a newly resolved address
///
/// Programs keep addresses for longer than TTLs say; the grace lets them in without trusting the old address.
/// The table holds what the kernel's `pinned4`/`pinned6` sets hold, with the names: it is changed only after the
/// kernel acknowledged, and an address stays in the kernel for as long as any of its names is in grace here.
public struct PinTable {
    /// How far an admission has aged.
    public enum Freshness: Hashable, Sendable {
        /// Recently resolved: the address itself may be dialled.
        case fresh
        /// Resolved some time ago: the name must be resolved again before dialling.
        case grace
    }

    /// Lifetimes and bounds.
    public struct Limits: Hashable, Sendable {
        /// The least time a pin is fresh, in seconds.
        public var minimumFreshSeconds: UInt32 = 300
        /// The most time a pin is fresh, in seconds, whatever the TTL says.
        public var maximumFreshSeconds: UInt32 = 86_400
        /// The grace after that, in seconds.
        public var graceSeconds: UInt32 = 3_600
        /// The most addresses pinned at once.
        public var maximumAddresses = 16_384
        /// The most names pinned at one address (shared hosting, CDNs); the one resolved longest ago makes room.
        public var maximumNamesPerAddress = 256

        /// The defaults.
        public init() {}
    }

    /// Why an address cannot be pinned.
    public enum AdmissionError: Error, Hashable, Sendable {
        /// The sandbox has as many pinned addresses as it may have.
        case tooManyAddresses
    }

    struct Admission: Hashable {
        var name: DomainName
        var freshUntil: MonotonicTime
        var graceUntil: MonotonicTime
    }

    /// Lifetimes and bounds.
    public let limits: Limits
    private var admissions: [IPAddress: [Admission]] = [:]
    private var addressesPerName: [DomainName: Int] = [:]
    /// Addresses that a process before this one pinned: the kernel remembers the name of each that was resolved last, and none
    /// of its others.
    private var inherited: Set<IPAddress> = []
    /// Counts the admissions that have ended. While it stays the same, whatever was pinned is.
    public private(set) var endedAdmissions: UInt64 = 0

    /// An empty table.
    public init(limits: Limits = Limits()) {
        self.limits = limits
    }

    /// How many addresses are pinned, expired ones that ``removeExpired(at:)`` has not yet seen included.
    public var addressCount: Int { admissions.count }
}

// MARK: - Changing

extension PinTable {
    /// How long the kernel must hold `address`, which was resolved with `ttl`, from `now` on, in seconds: for this
    /// admission, and for every other name that has a longer one.
    public func kernelTimeout(for address: IPAddress, ttl: UInt32, at now: MonotonicTime) -> UInt32 {
        max(freshSeconds(ttl: ttl) + limits.graceSeconds, remainingSeconds(admissions[address] ?? [], now))
    }

    /// How long the kernel must hold `address` from `now` on, in seconds, for the admissions that there are.
    public func kernelTimeout(for address: IPAddress, at now: MonotonicTime) -> UInt32 {
        remainingSeconds(admissions[address] ?? [], now)
    }

    private func remainingSeconds(_ entries: [Admission], _ now: MonotonicTime) -> UInt32 {
        guard let last = entries.map(\.graceUntil).max(), last > now else { return 0 }
        // Rounded up: the kernel must not be the first to forget.
        return UInt32(clamping: (last.nanoseconds - now.nanoseconds - 1) / 1_000_000_000 + 1)
    }

    /// Whether ``admit(_:for:ttl:at:)`` would have room for all of `addresses`. Asked before the kernel is told.
    public func hasRoom(for addresses: [IPAddress]) -> Bool {
        addresses.count { admissions[$0] == nil } + admissions.count <= limits.maximumAddresses
    }

    /// Whether pinning all of `addresses` for `name` again would gain less than a second: then neither the kernel nor
    /// the table need be told. A program that asks in a loop gets its answers from the cache at no more cost than that.
    public func isCurrent(_ addresses: [IPAddress], for name: DomainName, ttl: UInt32, at now: MonotonicTime) -> Bool {
        let freshUntil = now.advanced(bySeconds: UInt64(freshSeconds(ttl: ttl)) - 1)
        return addresses.allSatisfy { address in
            admissions[address]?.contains { $0.name == name && $0.freshUntil >= freshUntil } ?? false
        }
    }

    /// Admits `address` for `name`, or renews it. Call it when the kernel has acknowledged the pin.
    public mutating func admit(
        _ address: IPAddress,
        for name: DomainName,
        ttl: UInt32,
        at now: MonotonicTime
    ) throws(AdmissionError) {
        let freshUntil = now.advanced(bySeconds: UInt64(freshSeconds(ttl: ttl)))
        let admission = Admission(
            name: name,
            freshUntil: freshUntil,
            graceUntil: freshUntil.advanced(bySeconds: UInt64(limits.graceSeconds))
        )
        guard var entries = admissions[address] else {
            guard admissions.count < limits.maximumAddresses else { throw .tooManyAddresses }
            admissions[address] = [admission]
            addressesPerName[name, default: 0] += 1
            return
        }
        if let index = entries.firstIndex(where: { $0.name == name }) {
            entries[index].freshUntil = max(entries[index].freshUntil, freshUntil)
            entries[index].graceUntil = max(entries[index].graceUntil, admission.graceUntil)
        } else {
            if entries.count >= limits.maximumNamesPerAddress,
                let oldest = entries.indices.min(by: { entries[$0].freshUntil < entries[$1].freshUntil })
            {
                forget(entries.remove(at: oldest).name)
            }
            entries.append(admission)
            addressesPerName[name, default: 0] += 1
        }
        admissions[address] = entries
    }

    /// Takes over a pin that the kernel holds for `secondsLeft` more, from the process that made it. Of its time the
    /// last ``Limits/graceSeconds`` are grace. Ignored when there is no room.
    public mutating func restore(_ address: IPAddress, for name: DomainName, secondsLeft: UInt32, at now: MonotonicTime)
    {
        guard admissions[address] == nil, admissions.count < limits.maximumAddresses, secondsLeft > 0 else { return }
        let fresh = secondsLeft > limits.graceSeconds ? secondsLeft - limits.graceSeconds : 0
        admissions[address] = [
            Admission(
                name: name,
                freshUntil: now.advanced(bySeconds: UInt64(fresh)),
                graceUntil: now.advanced(bySeconds: UInt64(secondsLeft))
            )
        ]
        addressesPerName[name, default: 0] += 1
        inherited.insert(address)
    }

    /// A connection used the pin: its grace starts anew when less than half of it is left. Returns the timeout in
    /// seconds that the kernel's element must be given then, `nil` when nothing changed.
    public mutating func renew(_ address: IPAddress, for name: DomainName, at now: MonotonicTime) -> UInt32? {
        guard var entries = admissions[address], let index = entries.firstIndex(where: { $0.name == name }),
            entries[index].graceUntil > now,
            entries[index].graceUntil.seconds(since: now) < UInt64(limits.graceSeconds) / 2
        else { return nil }
        entries[index].graceUntil = now.advanced(bySeconds: UInt64(limits.graceSeconds))
        admissions[address] = entries
        return max(limits.graceSeconds, remainingSeconds(entries, now))
    }

    /// Forgets what has expired. Returns the addresses that no name holds any more; the kernel drops them by itself.
    @discardableResult
    public mutating func removeExpired(at now: MonotonicTime) -> [IPAddress] {
        removeAll { _, _, graceUntil in graceUntil <= now }
    }

    /// Forgets the admissions of names and of addresses that are revoked, after a policy change. Returns the addresses that
    /// no name holds any more: those the kernel must drop.
    ///
    /// Each name and each address is asked about once, however many admissions they make together: in a full table a
    /// hundred times as many.
    public mutating func revoke(
        names isRevokedName: (DomainName) -> Bool,
        addresses isRevokedAddress: (IPAddress) -> Bool
    ) -> [IPAddress] {
        let names = Set(addressesPerName.keys.filter(isRevokedName))
        let addresses = Set(admissions.keys.filter(isRevokedAddress))
        guard !names.isEmpty || !addresses.isEmpty else { return [] }
        return removeAll { name, address, _ in addresses.contains(address) || names.contains(name) }
    }

    private mutating func removeAll(where isGone: (DomainName, IPAddress, MonotonicTime) -> Bool) -> [IPAddress] {
        var emptied: [IPAddress] = []
        for (address, entries) in admissions {
            let gone = entries.filter { isGone($0.name, address, $0.graceUntil) }
            guard !gone.isEmpty else { continue }
            gone.forEach { forget($0.name) }
            if gone.count == entries.count {
                admissions[address] = nil
                inherited.remove(address)
                emptied.append(address)
            } else {
                admissions[address] = entries.filter { !isGone($0.name, address, $0.graceUntil) }
            }
        }
        return emptied
    }

    private mutating func forget(_ name: DomainName) {
        endedAdmissions += 1
        guard let count = addressesPerName[name] else { return }
        addressesPerName[name] = count > 1 ? count - 1 : nil
    }

    private func freshSeconds(ttl: UInt32) -> UInt32 {
        min(max(ttl, limits.minimumFreshSeconds), limits.maximumFreshSeconds)
    }
}

// MARK: - Asking

extension PinTable {
    /// Whether and how freshly `address` is pinned for `name`.
    public func freshness(of address: IPAddress, for name: DomainName, at now: MonotonicTime) -> Freshness? {
        pin(of: address, for: name, at: now)?.freshness
    }

    /// The pin of `address` for `name`, and how fresh it is. The name is the pin's own: who keeps that one instead of what
    /// it asked with takes no memory for it.
    public func pin(
        of address: IPAddress,
        for name: DomainName,
        at now: MonotonicTime
    ) -> (name: DomainName, freshness: Freshness)? {
        guard let entry = admissions[address]?.first(where: { $0.name == name }) else { return nil }
        return entry.freshness(at: now).map { (entry.name, $0) }
    }

    /// Whether `address` is pinned for any name, fresh or in grace.
    public func isPinned(_ address: IPAddress, at now: MonotonicTime) -> Bool {
        admissions[address]?.contains { $0.freshness(at: now) != nil } ?? false
    }

    /// Whether `address` may have been pinned, by the process before this one, for names that nobody remembers.
    public func hasForgottenNames(at address: IPAddress, _ now: MonotonicTime) -> Bool {
        inherited.contains(address) && isPinned(address, at: now)
    }

    /// The names that `address` is freshly pinned for, the one resolved last first.
    public func freshNames(at address: IPAddress, _ now: MonotonicTime) -> [DomainName] {
        (admissions[address] ?? []).filter { $0.freshness(at: now) == .fresh }
            .sorted { $1.freshUntil < $0.freshUntil }.map(\.name)
    }

    /// The name that `address` was last resolved for, expired or not; for records.
    public func lastName(at address: IPAddress) -> DomainName? {
        admissions[address]?.max { $0.freshUntil < $1.freshUntil }?.name
    }

    /// Whether any address is pinned for `name`, so that asking for it again carries nothing new outside. Expired pins
    /// count until ``removeExpired(at:)`` has seen them.
    public func holds(_ name: DomainName) -> Bool { addressesPerName[name] != nil }
}

extension PinTable.Admission {
    func freshness(at now: MonotonicTime) -> PinTable.Freshness? {
        if now < freshUntil { return .fresh }
        return now < graceUntil ? .grace : nil
    }
}
