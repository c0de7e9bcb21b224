import Glibc

/// How many processors the machine has.
enum ProcessorCount {
    static var available: Int {
        max(sysconf(CInt(_SC_NPROCESSORS_ONLN)), 1)
    }
}
