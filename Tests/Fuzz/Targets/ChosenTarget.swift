/// The target that was chosen on the command line. Set once, before the only thread hands over to libFuzzer, whose
/// callback has no room for a context.
nonisolated(unsafe) var target = FuzzTarget.all[0]
