import Reactor

/// Calls when a descriptor that somebody else owns is readable.
final class DescriptorWatcher: EventSource {
    var onReadable: (DescriptorWatcher) -> Void = { _ in }

    override func handle(_ readiness: Readiness) {
        onReadable(self)
    }
}
