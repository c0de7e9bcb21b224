import Datapath
import NetPrimitives
import Reactor

/// A survey on its way through the sandboxes of a loop. However many connections there are, nobody's wait for more than one
/// step of it: some hundred microseconds. Confined to the loop; what has ended meanwhile is held until its end.
final class SurveyWalk {
    /// How many connections are looked at in a turn of the loop.
    private static let step = 2_000

    private let loop: EventLoop
    private var attachments: ArraySlice<Attachment>
    private var survey: ConnectionSurvey
    private let completion: (ConnectionListing) -> Void

    init(
        loop: EventLoop,
        attachments: [Attachment],
        survey: ConnectionSurvey,
        completion: @escaping (ConnectionListing) -> Void
    ) {
        self.loop = loop
        self.attachments = attachments[...]
        self.survey = survey
        self.completion = completion
    }

    /// Takes a step, and sees to the others.
    func go() {
        var allowance = Self.step
        while allowance > 0, let attachment = attachments.first {
            guard survey.examine(attachment, allowance: &allowance) else { continue }
            attachments.removeFirst()
        }
        guard attachments.isEmpty, survey.describe(allowance: &allowance) else {
            // The timer is what holds the walk.
            loop.schedule(at: loop.now) { self.go() }
            return
        }
        completion(survey.listing)
    }
}
