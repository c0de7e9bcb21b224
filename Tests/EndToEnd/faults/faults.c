// Makes chosen calls of one program fail, for lab/faults.py: preloaded (LD_PRELOAD) into sandgate, it counts the calls by
// which sandgate speaks with the kernel, notes each, and spoils those that it is told to.
//
//     cc -shared -fPIC -O1 -o faults.so faults.c && SANDGATE_FAULTS=FILE LD_PRELOAD=faults.so sandgate …
//
// FILE holds a page of orders (struct orders), which may be changed while the program runs, and behind it a record for
// each call. It is mapped shared: init, which the command's namespaces begin with, is cloned without a library's
// knowledge, closes every descriptor, and counts in the same place. Hence no lock, no allocation and no descriptor in
// any of the wrappers. Programs of other names are left alone; what sandgate starts gets neither variable.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

// The order is lab/faults.py's.
enum kind {
    NETLINK_SOCKET, NETLINK_BIND, NETLINK_OPTION, NETLINK_SEND, NETLINK_RECEIVE, SOCKET, BIND, LISTEN, OPTION, ACCEPT,
    MOUNT, UNMOUNT, SETNS, UNSHARE, CLONE, OPEN, LIST, WRITE, SYNCHRONISE, RENAME, EPOLL, DESCRIPTOR,
};

enum action { COUNT, FAIL, SHORTEN, LOSE, KILL };

struct orders {
    uint32_t armed;
    uint32_t action;
    int32_t error;
    uint32_t unused;
    uint64_t kinds;                     // bits
    uint64_t first, last, step;         // which of these calls, from 1
    _Atomic uint64_t count;             // calls of these kinds while armed
    _Atomic uint64_t spoiled;
    uint64_t room;                      // for records
    uint64_t caller, context;           // calls from there alone, unless 0
};

struct record {
    uint32_t kind;
    uint32_t spoiled;
    int32_t process, thread;
    uint64_t caller;                    // within the program's file, or an address elsewhere
    uint64_t context;                   // a digest of who called the caller
    char text[96];
};

static struct orders *orders;
static struct record *records;
static uintptr_t base, end_of_code;

static int find_program(struct dl_phdr_info *info, size_t size, void *unused) {
    (void)size;
    (void)unused;
    base = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && part->p_flags & PF_X) end_of_code = base + part->p_vaddr + part->p_memsz;
    }
    return 1;                           // the first is the program
}

// Looked up at the beginning: a copy of the process may hold the linker's lock.
#define WRAPPED(X) \
    X(socket) X(bind) X(listen) X(setsockopt) X(accept4) X(accept) X(send) X(sendto) X(sendmsg) X(recv) X(recvfrom) \
    X(recvmsg) X(mount) X(umount2) X(setns) X(unshare) X(open) X(open64) X(openat) X(openat64) X(opendir) X(readdir) \
    X(readdir64) X(write) X(pwrite) X(pwrite64) X(writev) X(fsync) X(fdatasync) X(rename) X(epoll_ctl) \
    X(epoll_create1) X(eventfd) X(pipe2) X(socketpair)
#define DECLARE(name) static __typeof__(&name) real_##name;
#define LOOK_UP(name) real_##name = (__typeof__(real_##name))dlsym(RTLD_NEXT, #name);
WRAPPED(DECLARE)

__attribute__((constructor)) static void begin(void) {
    WRAPPED(LOOK_UP)
    const char *path = getenv("SANDGATE_FAULTS");
    if (path == NULL || strcmp(program_invocation_short_name, "sandgate") != 0) return;
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) abort();
    void *memory = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) abort();
    close(file);
    dl_iterate_phdr(find_program, NULL);
    records = (struct record *)((char *)memory + 4096);
    orders = memory;
    unsetenv("SANDGATE_FAULTS");
    unsetenv("LD_PRELOAD");
}

static _Noreturn void end(void) {
    // The kernel keeps from pid 1 of a namespace what it sends to itself.
    syscall(SYS_kill, (pid_t)syscall(SYS_getpid), SIGKILL);
    syscall(SYS_exit_group, 137);
    __builtin_unreachable();
}

static int is_ours(const void *caller) { return (uintptr_t)caller >= base && (uintptr_t)caller < end_of_code; }

// Who called the program's function that calls us, by the frame pointers that Swift keeps.
static uint64_t context_of(const void *caller, void *const *frame) {
    uint64_t digest = 0;
    if (!is_ours(caller)) return 0;
    for (int depth = 0; depth < 4; depth++) {
        void *const *next = frame[0];
        if (next <= frame || next > frame + 0x2000 || (uintptr_t)next % sizeof(void *) != 0) break;
        frame = next;
        // Libraries are elsewhere in every process.
        digest = (digest ^ (is_ours(frame[1]) ? (uintptr_t)frame[1] - base : 0)) * 0x9e3779b97f4a7c15;
    }
    return digest;
}

// libdispatch looks at its threads once a second. It cannot do without, and says so by ending the process.
static int is_watch_on_threads(enum kind kind, const char *path) {
    size_t length = kind == OPEN ? strlen(path) : 0;
    return length > 11 && strncmp(path, "/proc/", 6) == 0 && strcmp(path + length - 5, "/stat") == 0;
}

// Whether this call is to be spoiled; notes it. The name is copied.
static int strikes(enum kind kind, const void *caller, void *const *frame, const char *text) {
    if (orders == NULL || !orders->armed || !(orders->kinds >> kind & 1)) return 0;
    // Nor can it without these.
    if ((kind == EPOLL || kind == DESCRIPTOR || is_watch_on_threads(kind, text)) && !is_ours(caller)) return 0;
    uint64_t place = is_ours(caller) ? (uintptr_t)caller - base : (uintptr_t)caller, context = context_of(caller, frame);
    if (orders->caller != 0 && (orders->caller != place || orders->context != context)) return 0;
    uint64_t number = atomic_fetch_add(&orders->count, 1) + 1;
    int strikes = orders->action != COUNT && number >= orders->first && number <= orders->last
        && (number - orders->first) % orders->step == 0;
    if (number <= orders->room) {
        struct record *record = &records[number - 1];
        record->kind = kind;
        record->spoiled = (uint32_t)strikes;
        record->process = (int32_t)syscall(SYS_getpid);
        record->thread = (int32_t)syscall(SYS_gettid);
        record->caller = place;
        record->context = context;
        size_t length = 0;
        while (text != NULL && length < sizeof record->text - 1 && text[length] != 0) {
            record->text[length] = text[length];
            length++;
        }
        record->text[length] = 0;
    }
    if (strikes) atomic_fetch_add(&orders->spoiled, 1);
    if (strikes && orders->action == KILL) end();
    return strikes;
}

#define CALLER __builtin_return_address(0), __builtin_frame_address(0)
#define REAL(name) \
    __typeof__(&name) real = real_##name; \
    if (real == NULL) real = (__typeof__(real))dlsym(RTLD_NEXT, #name)
#define FAIL_IF(kind, text) \
    do { \
        if (strikes(kind, CALLER, text)) { \
            errno = orders->error; \
            return -1; \
        } \
    } while (0)

static int is_netlink(int descriptor) {
    int before = errno, domain = 0;
    socklen_t length = sizeof domain;
    if (orders == NULL || getsockopt(descriptor, SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0) domain = 0;
    errno = before;
    return domain == AF_NETLINK;
}

static int is_file(int descriptor) {
    int before = errno;
    struct stat status;
    int result = orders != NULL && fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
    errno = before;
    return result;
}

// MARK: Sockets

int socket(int domain, int type, int protocol) {
    REAL(socket);
    FAIL_IF(domain == AF_NETLINK ? NETLINK_SOCKET : SOCKET, "socket");
    return real(domain, type, protocol);
}

int bind(int descriptor, const struct sockaddr *address, socklen_t length) {
    REAL(bind);
    FAIL_IF(is_netlink(descriptor) ? NETLINK_BIND : BIND, "bind");
    return real(descriptor, address, length);
}

int listen(int descriptor, int backlog) {
    REAL(listen);
    FAIL_IF(LISTEN, "listen");
    return real(descriptor, backlog);
}

int setsockopt(int descriptor, int level, int option, const void *value, socklen_t length) {
    REAL(setsockopt);
    FAIL_IF(is_netlink(descriptor) ? NETLINK_OPTION : OPTION, "setsockopt");
    return real(descriptor, level, option, value, length);
}

int accept4(int descriptor, struct sockaddr *address, socklen_t *length, int flags) {
    REAL(accept4);
    FAIL_IF(ACCEPT, "accept4");
    return real(descriptor, address, length, flags);
}

int accept(int descriptor, struct sockaddr *address, socklen_t *length) {
    REAL(accept);
    FAIL_IF(ACCEPT, "accept");
    return real(descriptor, address, length);
}

// What was sent last, and how often was read since: it tells the purposes of a library's calls apart.
static _Atomic unsigned last_type, last_length, reads;

static char *append(char *end, unsigned number) {
    *end++ = ' ';
    for (unsigned place = 10000; place > 0; place /= 10) *end++ = (char)('0' + number / place % 10);
    *end = 0;
    return end;
}

static const char *sending(char text[32], const void *message, size_t length) {
    uint16_t type = 0;
    if (message != NULL && length >= 16) memcpy(&type, (const char *)message + 4, sizeof type);
    last_type = type;
    last_length = (unsigned)length;
    reads = 0;
    append(append(stpcpy(text, "send"), type), last_length);
    return text;
}

static const char *receiving(char text[32]) {
    unsigned number = ++reads;
    append(append(append(stpcpy(text, "after"), last_type), last_length), number < 3 ? number : 3);
    return text;
}

// A netlink message in two, of which the first half is sent.
#define SEND(data, length, whole, half) \
    do { \
        char text[32]; \
        if (!is_netlink(descriptor)) return whole; \
        if (!strikes(NETLINK_SEND, CALLER, sending(text, data, length))) return whole; \
        if (orders->action == SHORTEN && (length) > 1) return half; \
        errno = orders->error; \
        return -1; \
    } while (0)

ssize_t send(int descriptor, const void *data, size_t length, int flags) {
    REAL(send);
    SEND(data, length, real(descriptor, data, length, flags), real(descriptor, data, length / 2, flags));
}

ssize_t sendto(
    int descriptor, const void *data, size_t length, int flags, const struct sockaddr *address, socklen_t address_length
) {
    REAL(sendto);
    SEND(
        data,
        length,
        real(descriptor, data, length, flags, address, address_length),
        real(descriptor, data, length / 2, flags, address, address_length)
    );
}

ssize_t sendmsg(int descriptor, const struct msghdr *message, int flags) {
    REAL(sendmsg);
    struct iovec piece = message->msg_iovlen > 0 ? message->msg_iov[0] : (struct iovec){0};
    struct msghdr half = *message;
    piece.iov_len /= 2;
    half.msg_iov = &piece;
    half.msg_iovlen = 1;
    SEND(piece.iov_base, piece.iov_len * 2, real(descriptor, message, flags), real(descriptor, &half, flags));
}

// Half of a netlink message, or none of it though it came: ENOBUFS says that one was lost.
#define RECEIVE(call) \
    do { \
        char text[32]; \
        if (!is_netlink(descriptor)) return call; \
        if (!strikes(NETLINK_RECEIVE, CALLER, receiving(text))) return call; \
        if (orders->action == SHORTEN) { \
            ssize_t count = call; \
            return count > 1 ? count / 2 : count; \
        } \
        if (orders->action == LOSE && call < 0) return -1; \
        errno = orders->error; \
        return -1; \
    } while (0)

ssize_t recv(int descriptor, void *data, size_t length, int flags) {
    REAL(recv);
    RECEIVE(real(descriptor, data, length, flags));
}

ssize_t recvfrom(
    int descriptor, void *data, size_t length, int flags, struct sockaddr *address, socklen_t *address_length
) {
    REAL(recvfrom);
    RECEIVE(real(descriptor, data, length, flags, address, address_length));
}

ssize_t recvmsg(int descriptor, struct msghdr *message, int flags) {
    REAL(recvmsg);
    RECEIVE(real(descriptor, message, flags));
}

// MARK: Namespaces and mounts

int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data) {
    REAL(mount);
    FAIL_IF(MOUNT, target);
    return real(source, target, type, flags, data);
}

int umount2(const char *target, int flags) {
    REAL(umount2);
    FAIL_IF(UNMOUNT, target);
    return real(target, flags);
}

int setns(int descriptor, int type) {
    REAL(setns);
    FAIL_IF(SETNS, "setns");
    return real(descriptor, type);
}

int unshare(int flags) {
    REAL(unshare);
    FAIL_IF(UNSHARE, "unshare");
    return real(flags);
}

long syscall(long number, ...) {
    va_list list;
    va_start(list, number);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long);
    long d = va_arg(list, long), e = va_arg(list, long), f = va_arg(list, long);
    va_end(list);
    if (orders != NULL) {
        if (number == SYS_clone3 || number == SYS_clone) FAIL_IF(CLONE, "clone");
        if (number == SYS_mount_setattr) FAIL_IF(MOUNT, (const char *)b);
    }
    // Not by dlsym: begin() calls this, and so may a copy of the process that holds a lock.
    long result;
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    result = x0;
#else
#error "no system call here"
#endif
    if (result < 0 && result > -4096) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

// MARK: Files

static int mode_of(int flags, va_list list) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(list, int) : 0;
}

#define OPENER(name, ...) \
    REAL(name); \
    va_list list; \
    va_start(list, flags); \
    int mode = mode_of(flags, list); \
    va_end(list); \
    FAIL_IF(OPEN, path); \
    return real(__VA_ARGS__, mode)

int open(const char *path, int flags, ...) { OPENER(open, path, flags); }
int open64(const char *path, int flags, ...) { OPENER(open64, path, flags); }
int openat(int directory, const char *path, int flags, ...) { OPENER(openat, directory, path, flags); }
int openat64(int directory, const char *path, int flags, ...) { OPENER(openat64, directory, path, flags); }

// Whether a directory was opened and nothing of it read yet: of its entries the first counts, for all of them. Nor does it
// matter which directory of thousands it is.
static _Atomic unsigned is_new_list;

DIR *opendir(const char *path) {
    REAL(opendir);
    if (!strikes(LIST, CALLER, "opendir")) {
        is_new_list = 1;
        return real(path);
    }
    errno = orders->error;
    return NULL;
}

#define LISTER(name) \
    REAL(name); \
    if (!atomic_exchange(&is_new_list, 0) || !strikes(LIST, CALLER, "readdir")) return real(stream); \
    errno = orders->error; \
    return NULL

struct dirent *readdir(DIR *stream) { LISTER(readdir); }
struct dirent64 *readdir64(DIR *stream) { LISTER(readdir64); }

#define WRITER(length, whole, half) \
    do { \
        if (!is_file(descriptor) || !strikes(WRITE, CALLER, "write")) return whole; \
        if (orders->action == SHORTEN && (length) > 1) return half; \
        errno = orders->error; \
        return -1; \
    } while (0)

ssize_t write(int descriptor, const void *data, size_t length) {
    REAL(write);
    WRITER(length, real(descriptor, data, length), real(descriptor, data, length / 2));
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset) {
    REAL(pwrite);
    WRITER(length, real(descriptor, data, length, offset), real(descriptor, data, length / 2, offset));
}

ssize_t pwrite64(int descriptor, const void *data, size_t length, off_t offset) {
    REAL(pwrite64);
    WRITER(length, real(descriptor, data, length, offset), real(descriptor, data, length / 2, offset));
}

ssize_t writev(int descriptor, const struct iovec *pieces, int count) {
    REAL(writev);
    WRITER(count, real(descriptor, pieces, count), real(descriptor, pieces, count / 2));
}

int fsync(int descriptor) {
    REAL(fsync);
    FAIL_IF(SYNCHRONISE, "fsync");
    return real(descriptor);
}

int fdatasync(int descriptor) {
    REAL(fdatasync);
    FAIL_IF(SYNCHRONISE, "fdatasync");
    return real(descriptor);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    FAIL_IF(RENAME, to);
    return real(from, to);
}

// MARK: Event loops

int epoll_ctl(int descriptor, int operation, int other, struct epoll_event *event) {
    REAL(epoll_ctl);
    // Taking one away needs no memory, and cannot fail.
    if (operation != EPOLL_CTL_DEL) FAIL_IF(EPOLL, "epoll_ctl");
    return real(descriptor, operation, other, event);
}

int epoll_create1(int flags) {
    REAL(epoll_create1);
    FAIL_IF(DESCRIPTOR, "epoll_create1");
    return real(flags);
}

int eventfd(unsigned int value, int flags) {
    REAL(eventfd);
    FAIL_IF(DESCRIPTOR, "eventfd");
    return real(value, flags);
}

int pipe2(int descriptors[2], int flags) {
    REAL(pipe2);
    FAIL_IF(DESCRIPTOR, "pipe2");
    return real(descriptors, flags);
}

int socketpair(int domain, int type, int protocol, int descriptors[2]) {
    REAL(socketpair);
    FAIL_IF(DESCRIPTOR, "socketpair");
    return real(domain, type, protocol, descriptors);
}
