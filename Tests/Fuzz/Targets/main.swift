import Glibc

// sandgate-fuzz TARGET [libFuzzer's arguments]: fuzzes one decoder.
// sandgate-fuzz list: the names of the targets.
// sandgate-fuzz decode KIND: reads inputs, each behind its length in four bytes (network order), and prints on a line
// each what the decoder sees in it, for comparison with other programs' decoders.

@_extern(c, "LLVMFuzzerRunDriver")
func runLibFuzzer(
    _ count: UnsafeMutablePointer<CInt>,
    _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
    _ check: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

func fail(_ message: String) -> Never {
    let line = Array("sandgate-fuzz: \(message)\n".utf8)
    _ = line.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
    exit(2)
}

/// Hands over to libFuzzer, which takes the first argument for the program's name.
func fuzz(
    _ name: String,
    _ count: CInt,
    _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>
) -> Never {
    guard let chosen = FuzzTarget.all.first(where: { $0.name == name }) else { fail("there is no target \(name)") }
    target = chosen
    var (count, arguments) = (count, arguments)
    exit(
        runLibFuzzer(&count, &arguments) { bytes, count in
            target.check(Array(UnsafeBufferPointer(start: bytes, count: count)))
            return 0
        }
    )
}

// libFuzzer starts the program anew for some options, with its own arguments alone.
let variable = "SANDGATE_FUZZ_TARGET"
if let name = getenv(variable) { fuzz(String(cString: name), CommandLine.argc, CommandLine.unsafeArgv) }

let words = CommandLine.arguments
guard words.count > 1 else { fail("expected list, decode KIND, or TARGET and libFuzzer's arguments") }
switch words[1] {
case "list":
    for target in FuzzTarget.all { print(target.name) }
case "decode":
    guard words.count == 3, let decoder = Decoder(rawValue: words[2]) else {
        fail("expected one of \(Decoder.allCases.map(\.rawValue).joined(separator: ", ")) after decode")
    }
    decoder.run()
default:
    setenv(variable, words[1], 1)
    CommandLine.unsafeArgv[1] = CommandLine.unsafeArgv[0]
    fuzz(words[1], CommandLine.argc - 1, CommandLine.unsafeArgv + 1)
}
