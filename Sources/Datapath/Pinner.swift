import EgressCore
import EgressPolicy
import NetPrimitives
import Nftables
import Reactor

/// Keeps a sandbox's pin table and the kernel's sets in step: an address is in the table only after the kernel
/// acknowledged it, and leaves the kernel before it leaves the table. Confined to the sandbox's event loop.
final class Pinner {
    /// Why addresses could not be pinned. The answer that holds them must not be released.
    enum PinError: Error {
        /// The sandbox has as many pinned addresses as it may have.
        case tooManyAddresses
        /// The kernel refused; the text says which element and why.
        case kernel(String)
    }

    /// The addresses that an answer holds for a name.
    struct Request {
        let addresses: [IPAddress]
        let name: DomainName
        /// In seconds.
        let ttl: UInt32
    }

    private typealias Pin = (IPAddress, timeoutSeconds: UInt32, name: DomainName)

    /// The most addresses in one message of several answers. Without root, a datagram to the kernel holds some 200 KiB.
    private static let addressesAtOnce = 256

    /// What is pinned now.
    private(set) var table: PinTable
    private let kernel: SandboxTable
    private let loop: EventLoop
    private let latencies: LatencyMeter
    /// Runs while something is pinned: a sandbox that does nothing costs nothing.
    private var sweepTimer: TimerToken?
    private static let sweepSeconds: UInt64 = 60

    init(kernel: SandboxTable, loop: EventLoop, latencies: LatencyMeter, limits: PinTable.Limits = .init()) {
        self.table = PinTable(limits: limits)
        self.kernel = kernel
        self.loop = loop
        self.latencies = latencies
    }

    /// Pins `addresses` for `name`; returns when the kernel has acknowledged all of them.
    func pin(_ addresses: [IPAddress], for name: DomainName, ttl: UInt32) throws(PinError) {
        guard !table.isCurrent(addresses, for: name, ttl: ttl, at: loop.now) else { return }
        try pinTogether([Request(addresses: addresses, name: name, ttl: ttl)])
    }

    /// Pins what several answers hold, with one message to the kernel where that is possible; returns when it has been
    /// acknowledged, with what went wrong with each. None suffers from another.
    func pin(_ requests: [Request]) -> [PinError?] {
        var errors = [PinError?](repeating: nil, count: requests.count)
        var rest = requests.indices
        while let first = rest.first {
            var addressCount = 0
            let together = rest.prefix { index in
                addressCount += requests[index].addresses.count
                return index == first || addressCount <= Self.addressesAtOnce
            }
            rest.removeFirst(together.count)
            do {
                try pinTogether(requests[together])
            } catch  where together.count == 1 {
                errors[first] = error
            } catch {
                for index in together {
                    do { try pinTogether([requests[index]]) } catch { errors[index] = error }
                }
            }
        }
        return errors
    }

    /// All or none of them.
    private func pinTogether(_ requests: ArraySlice<Request>) throws(PinError) {
        let now = loop.now
        let requests = requests.filter { !table.isCurrent($0.addresses, for: $0.name, ttl: $0.ttl, at: now) }
        guard !requests.isEmpty else { return }
        let addresses = requests.flatMap(\.addresses)
        if !table.hasRoom(for: addresses) { table.removeExpired(at: now) }
        guard table.hasRoom(for: addresses) else { throw .tooManyAddresses }
        let start = MonotonicTime.current
        try install(pins(requests, at: now))
        for request in requests {
            latencies.countPin(since: start)
            for address in request.addresses {
                do {
                    try table.admit(address, for: request.name, ttl: request.ttl, at: now)
                } catch {
                    throw .tooManyAddresses
                }
            }
        }
        armSweep()
    }

    /// What the kernel is told. Where two names have an address, it must hold it for the longer time.
    private func pins(_ requests: [Request], at now: MonotonicTime) -> [Pin] {
        var pins: [Pin] = []
        var timeouts: [IPAddress: UInt32] = [:]
        for request in requests {
            for address in request.addresses {
                let timeout = table.kernelTimeout(for: address, ttl: request.ttl, at: now)
                timeouts[address] = max(timeout, timeouts[address] ?? 0)
                pins.append((address, timeouts[address]!, request.name))
            }
        }
        return pins
    }

    /// A connection used the pin; its grace starts anew. A kernel error is not one for the connection: the pin then
    /// only ends earlier.
    func renew(_ address: IPAddress, for name: DomainName) {
        guard let timeout = table.renew(address, for: name, at: loop.now) else { return }
        try? install([(address, timeout, name)])
    }

    /// Takes over the pins that the process before this one left in the kernel; those that cannot be are removed there.
    func restore(_ pins: [KernelPin]) throws(PinError) {
        for pin in pins {
            guard let name = pin.name else { continue }
            table.restore(pin.address, for: name, secondsLeft: pin.secondsLeft, at: loop.now)
        }
        armSweep()
        let forgotten = pins.map(\.address).filter { !table.isPinned($0, at: loop.now) }
        guard !forgotten.isEmpty else { return }
        do {
            try kernel.unpin(forgotten)
        } catch {
            throw .kernel("\(error)")
        }
    }

    /// Removes the pins that `policy` no longer has a use for, in the kernel first.
    func revoke(notAllowedBy policy: CompiledPolicy, at wallTime: WallTime) throws(PinError) {
        var remaining = table
        let gone = remaining.revoke(
            names: { policy.decideQuery($0, at: wallTime) != .allow },
            addresses: { !policy.mayUse($0, at: wallTime) }
        )
        if !gone.isEmpty {
            do {
                try kernel.unpin(gone)
            } catch {
                keep(gone)
                throw .kernel("\(error)")
            }
        }
        table = remaining
    }

    /// After a failure that leaves open whether the kernel has these pins still: it has them again, or they are forgotten
    /// here as well, to be pinned anew when their names are looked up.
    private func keep(_ addresses: [IPAddress]) {
        let now = loop.now
        let pins = addresses.compactMap { address in
            table.lastName(at: address).map { (address, table.kernelTimeout(for: address, at: now), $0) }
        }
        do {
            try install(pins)
        } catch {
            let lost = Set(addresses)
            _ = table.revoke(names: { _ in false }, addresses: lost.contains)
        }
    }

    /// Forgets no more by itself.
    func stop() {
        if let sweepTimer { loop.cancel(sweepTimer) }
        sweepTimer = nil
    }

    /// From now on forgets what has expired; the kernel does so by itself.
    private func armSweep() {
        guard sweepTimer == nil, table.addressCount > 0 else { return }
        sweepTimer = loop.schedule(at: loop.now.advanced(bySeconds: Self.sweepSeconds)) { [weak self] in
            guard let self else { return }
            sweepTimer = nil
            table.removeExpired(at: loop.now)
            armSweep()
        }
    }

    private func install(_ pins: [Pin]) throws(PinError) {
        do {
            try kernel.pin(pins)
        } catch {
            throw .kernel("\(error)")
        }
    }
}
