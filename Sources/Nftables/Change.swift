import NetPrimitives

/// What one message of a batch does. Becomes text only when it failed: batches are built for every DNS answer.
enum Change: Hashable, Sendable {
    case createTable(String)
    case adoptTable(String)
    case deleteTable(String)
    case createSet(String)
    case flushSet(String)
    case createChain(String)
    case flushChain(String)
    case addRule(String, chain: String)
    case addElement(IPAddress, set: String)
    case deleteElement(IPAddress, set: String)
    case addInterval(ClosedRange<IPAddress>, set: String)
    case deleteInterval(ClosedRange<IPAddress>, set: String)
    case addPorts(PortRange, set: String)
}

extension Change: CustomStringConvertible {
    /// Words that follow "cannot".
    var description: String {
        switch self {
        case .createTable(let table): "create table inet \(table)"
        case .adoptTable(let table): "take over table inet \(table)"
        case .deleteTable(let table): "delete table inet \(table)"
        case .createSet(let set): "create set \(set)"
        case .flushSet(let set): "empty set \(set)"
        case .createChain(let chain): "create chain \(chain)"
        case .flushChain(let chain): "flush chain \(chain)"
        case .addRule(let line, let chain): "add rule `\(line)` to chain \(chain)"
        case .addElement(let address, let set): "add \(address) to set \(set)"
        case .deleteElement(let address, let set): "delete \(address) from set \(set)"
        case .addInterval(let interval, let set): "add \(interval.lowerBound)-\(interval.upperBound) to set \(set)"
        case .deleteInterval(let interval, let set):
            "delete \(interval.lowerBound)-\(interval.upperBound) from set \(set)"
        case .addPorts(let ports, let set): "add \(ports) to set \(set)"
        }
    }
}
