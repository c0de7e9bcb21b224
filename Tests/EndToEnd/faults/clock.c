// Has the clocks of one program jump, for lab/clock.py: preloaded (LD_PRELOAD) into sandgate, it adds to what every clock
// says. A program that was frozen sees the same when it goes on.
//
//     cc -shared -fPIC -O1 -o clock.so clock.c && SANDGATE_CLOCK=FILE LD_PRELOAD=clock.so sandgate …
//
// FILE holds the seconds to add, eight bytes, which may be changed while the program runs. Programs of other names are left
// alone; what sandgate starts gets neither variable.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static _Atomic int64_t *ahead;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SANDGATE_CLOCK");
    if (path == NULL || strcmp(program_invocation_short_name, "sandgate") != 0) return;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    void *memory = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(*ahead), PROT_READ, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) abort();
    close(file);
    ahead = memory;
    unsetenv("SANDGATE_CLOCK");
    unsetenv("LD_PRELOAD");
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    // What a process or thread has used of the processors is no time of day.
    int is_time = clock != CLOCK_PROCESS_CPUTIME_ID && clock != CLOCK_THREAD_CPUTIME_ID;
    if (result == 0 && ahead != NULL && is_time) time->tv_sec += *ahead;
    return result;
}
