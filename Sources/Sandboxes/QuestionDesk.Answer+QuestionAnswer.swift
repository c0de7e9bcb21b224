public import Datapath
public import PolicyDocument

extension QuestionDesk.Answer {
    /// An answer that was read, as the desk carries it out.
    public init(_ answer: QuestionAnswer, by author: String) {
        let choice: Choice =
            switch answer.choice {
            case .deny: .deny
            case .once: .once(ports: answer.ports)
            case .allow(let until): .allow(ports: answer.ports, until: until)
            case .always: .always(ports: answer.ports)
            }
        self.init(choice, by: author, askedAt: answer.askedAt)
    }
}
