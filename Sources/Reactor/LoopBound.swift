/// A value that is confined to an event loop's thread, in an envelope that may go anywhere: it can be opened only
/// there.
///
/// `@unchecked Sendable` holds because the value is touched by nothing but messages, which run in the loop's thread.
/// Releasing it is not: whoever is confined to the loop must hold the value too for as long as its `deinit` matters.
public struct LoopBound<Value>: @unchecked Sendable {
    private let value: Value
    private let mailbox: Mailbox

    /// Confines `value`, which must not be touched outside the thread of `loop`.
    public init(_ value: Value, to loop: EventLoop) {
        self.value = value
        self.mailbox = loop.mailbox
    }

    /// Has `body` run with the value in the loop's thread; see ``Mailbox/post(_:)``.
    @discardableResult
    public func post(_ body: @escaping @Sendable (Value) -> Void) -> Bool {
        mailbox.post { body(value) }
    }
}
