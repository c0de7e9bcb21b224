/// Does something once when it was counted to the end.
actor Countdown {
    private var left: Int
    private let action: @Sendable () -> Void

    init(_ count: Int, _ action: @escaping @Sendable () -> Void) {
        left = count
        self.action = action
    }

    func count() {
        left -= 1
        if left == 0 { action() }
    }
}
