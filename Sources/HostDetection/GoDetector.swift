/// Asks go: `go env GOPROXY GOSUMDB GONOPROXY`, which is all it downloads modules from.
struct GoDetector {
    let system: any ToolSystem

    func detect() throws(DetectionError) -> Detection {
        try system.require("go")
        let output = try system.output(of: ["go", "env", "GOPROXY", "GOSUMDB", "GONOPROXY"], inProject: true)
        let lines = output.split(separator: "\n", omittingEmptySubsequences: false).map { $0.trimming(" \r") }
        guard lines.count >= 2 else { throw .failed(command: "go env", cause: "expected GOPROXY and GOSUMDB") }
        var detection = Detection()
        // Its default is GOPRIVATE; and it stands before GOPROXY, even where that is off.
        if lines.count > 2, !lines[2].isEmpty {
            detection.note(
                "go: GONOPROXY or GOPRIVATE says \(lines[2]): such modules come from their own hosts, which are not listed"
            )
        }
        for proxy in lines[0].split(whereSeparator: { $0 == "," || $0 == "|" }) {
            switch proxy {
            case "off": break
            case "direct":
                detection.note(
                    "go: GOPROXY also says direct: a module that no proxy has comes from its own host, which is not listed"
                )
            default: detection.add(url: String(proxy), source: "go: GOPROXY")
            }
        }
        let database = words(lines[1])
        guard let name = database.first, name != "off", lines[0] != "off" else { return detection }
        if database.count > 1 {
            detection.add(url: database[1], source: "go: GOSUMDB")
        } else {
            // NAME, or NAME+HASH+KEY.
            detection.add(url: "https://\(name.prefix { $0 != "+" })", source: "go: GOSUMDB")
        }
        return detection
    }
}
