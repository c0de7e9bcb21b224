#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "CConfinement.h"

int confinement_hide_process(void) { return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); }

// MARK: Capabilities

// Takes the thread's capabilities down to those of `keep` that it has; none of them is inherited.
static int hold_only(uint64_t keep) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct held[2] = {{0}};
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) return -1;
    if (syscall(SYS_capget, &header, held) != 0) return -1;
    for (int half = 0; half < 2; half++) {
        held[half].permitted &= (uint32_t)(keep >> (32 * half));
        held[half].effective = held[half].permitted;
        held[half].inheritable = 0;
    }
    return (int)syscall(SYS_capset, &header, held);
}

int confinement_drop_capabilities(uint64_t keep) {
    for (int capability = 0; capability < 64; capability++) {
        if ((keep >> capability) & 1) continue;
        int held = prctl(PR_CAPBSET_READ, capability, 0, 0, 0);
        if (held < 0) break;  // beyond the kernel's last capability
        if (held == 1 && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) return -1;
    }
    return hold_only(keep);
}

int confinement_take_up_capabilities(void) { return hold_only(UINT64_MAX); }

int confinement_keep_capabilities(uint64_t keep) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct held[2] = {{0}};
    if (syscall(SYS_capget, &header, held) != 0) return -1;
    if ((held[0].effective >> CAP_SETPCAP) & 1) {
        // The set bounds what executing a program gives, and nothing is executed any more.
        for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++) {
            if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) return -1;
        }
    }
    return hold_only(keep);
}

int confinement_access_without_override(const char *path, int mode) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct held[2] = {{0}}, without[2];
    if (syscall(SYS_capget, &header, held) != 0) return -1;
    memcpy(without, held, sizeof without);
    without[0].effective &= ~(1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH);
    if (syscall(SYS_capset, &header, without) != 0) return -1;
    // Not faccessat(3), which guesses where the kernel lacks the call, and guesses that root may. The error says no.
    int result = (int)syscall(SYS_faccessat2, AT_FDCWD, path, mode, AT_EACCESS), error = errno;
    if (syscall(SYS_capset, &header, held) != 0) return -1;
    errno = error;
    return result;
}

// MARK: The system call filter
//
// Everything is allowed but what follows. It closes what neither the namespaces nor the missing capabilities close:
// socket families that know no network namespace (AF_VSOCK) or that no sandbox needs, io_uring (which opens sockets
// without the socket system call), descriptors of processes and namespaces outside, typing into the terminal, and kernel
// features with a history of holes.
// Making user namespaces stays possible: a new one has no power over ours.

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "the system call filter is written for x86_64 and aarch64"
#endif

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
// The low half of an argument: the kernel itself reads these arguments as 32-bit numbers.
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define LOAD_ARGUMENT(n) LOAD(args[n])
#define LOAD_UPPER_HALF(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[n]) + 4)
#endif
#define ANSWER(action) BPF_STMT(BPF_RET | BPF_K, (action))
#define ALLOW ANSWER(SECCOMP_RET_ALLOW)
#define REFUSE(error) ANSWER(SECCOMP_RET_ERRNO | (error))
// If the loaded number is `value`, the next instruction is taken, else it is skipped.
#define WHEN(value) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, 1)
// If the loaded number is not `value`, the next `count` instructions are skipped.
#define UNLESS_SKIP(value, count) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (count))
#define REFUSE_CALL(number, error) WHEN(number), REFUSE(error)

// What older headers lack: NS_MNT_GET_NEXT and NS_MNT_GET_PREV of Linux 6.12, SO_PEERPIDFD and SO_PASSPIDFD of 6.5.
#define NAMESPACE_AFTER _IOC(_IOC_READ, 0xb7, 11, 16)
#define NAMESPACE_BEFORE _IOC(_IOC_READ, 0xb7, 12, 16)
#define PEERS_PROCESS 77
#define SENDERS_PROCESS 76

static const struct sock_filter filter[] = {
    // A foreign table of system calls (32-bit programs on a 64-bit kernel) has other numbers for the same calls.
    LOAD(arch),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCH, 1, 0),
    ANSWER(SECCOMP_RET_KILL_PROCESS),
    LOAD(nr),
#if defined(__x86_64__)
    // x32: bit 30 of the number.
    BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),
    REFUSE(ENOSYS),
#endif
    REFUSE_CALL(SYS_io_uring_setup, ENOSYS),
    REFUSE_CALL(SYS_io_uring_enter, ENOSYS),
    REFUSE_CALL(SYS_io_uring_register, ENOSYS),
    REFUSE_CALL(SYS_add_key, EPERM),
    REFUSE_CALL(SYS_request_key, EPERM),
    REFUSE_CALL(SYS_keyctl, EPERM),
    REFUSE_CALL(SYS_bpf, EPERM),
    REFUSE_CALL(SYS_perf_event_open, EPERM),
    REFUSE_CALL(SYS_userfaultfd, EPERM),
    REFUSE_CALL(SYS_open_by_handle_at, EPERM),
    REFUSE_CALL(SYS_kexec_load, EPERM),
    REFUSE_CALL(SYS_kexec_file_load, EPERM),
    REFUSE_CALL(SYS_init_module, EPERM),
    REFUSE_CALL(SYS_finit_module, EPERM),
    REFUSE_CALL(SYS_delete_module, EPERM),
    REFUSE_CALL(SYS_acct, EPERM),
    REFUSE_CALL(SYS_swapon, EPERM),
    REFUSE_CALL(SYS_swapoff, EPERM),
    REFUSE_CALL(SYS_reboot, EPERM),
    REFUSE_CALL(SYS_quotactl, EPERM),
    REFUSE_CALL(SYS_quotactl_fd, EPERM),
    REFUSE_CALL(SYS_pidfd_getfd, EPERM),
#if defined(__x86_64__)
    REFUSE_CALL(SYS_iopl, EPERM),
    REFUSE_CALL(SYS_ioperm, EPERM),
#endif
    // ioctl: what types into a terminal as if the user had, and what goes from one mount namespace to the next, through all
    // that there are.
    UNLESS_SKIP(SYS_ioctl, 10),
    LOAD_ARGUMENT(1),
    WHEN(TIOCSTI),
    REFUSE(EPERM),
    WHEN(0x541C /* TIOCLINUX: selection and paste on a virtual console */),
    REFUSE(EPERM),
    WHEN(NAMESPACE_AFTER),
    REFUSE(ENOTTY),
    WHEN(NAMESPACE_BEFORE),
    REFUSE(ENOTTY),
    ALLOW,
    // What makes a descriptor of the process at a socket's other end, who may be outside.
    UNLESS_SKIP(SYS_getsockopt, 6),
    LOAD_ARGUMENT(1),
    UNLESS_SKIP(SOL_SOCKET, 3),
    LOAD_ARGUMENT(2),
    WHEN(PEERS_PROCESS),
    REFUSE(ENOPROTOOPT),
    ALLOW,
    UNLESS_SKIP(SYS_setsockopt, 6),
    LOAD_ARGUMENT(1),
    UNLESS_SKIP(SOL_SOCKET, 3),
    LOAD_ARGUMENT(2),
    WHEN(SENDERS_PROCESS),
    REFUSE(ENOPROTOOPT),
    ALLOW,
    // socket and socketpair: the four families that a sandbox is for.
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 2, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socketpair, 1, 0),
    ALLOW,
    LOAD_ARGUMENT(0),
    WHEN(AF_UNIX),
    ALLOW,
    WHEN(AF_INET),
    ALLOW,
    WHEN(AF_INET6),
    ALLOW,
    WHEN(AF_NETLINK),
    ALLOW,
    REFUSE(EAFNOSUPPORT),
};

// No Unix socket that could be connected or send to a name. Pairs stay: they are connected, for good but for datagram
// ones, which may send to any name besides. On top of the other filter, which sees to foreign tables of system calls.
static const struct sock_filter unix_filter[] = {
    LOAD(nr),
    UNLESS_SKIP(SYS_socket, 4),
    LOAD_ARGUMENT(0),
    WHEN(AF_UNIX),
    REFUSE(EAFNOSUPPORT),
    ALLOW,
    UNLESS_SKIP(SYS_socketpair, 4),
    LOAD_ARGUMENT(1),
    BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xf /* the kernel's SOCK_TYPE_MASK */),
    WHEN(SOCK_DGRAM),
    REFUSE(EPROTONOSUPPORT),
    ALLOW,
};

// The limit of core dumps stays, and whoever sets its own is told that it was done: those who want none get none, and programs
// that keep secrets do not go on where they are refused.
static const struct sock_filter dump_filter[] = {
    LOAD(nr),
    UNLESS_SKIP(SYS_prlimit64, 11),
    LOAD_ARGUMENT(1),
    UNLESS_SKIP(RLIMIT_CORE, 8),
    // The new limit's address: none where only the old one is asked for.
    LOAD_ARGUMENT(2),
    UNLESS_SKIP(0, 2),
    LOAD_UPPER_HALF(2),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 4, 0),
    // Whose: 0 is the caller.
    LOAD_ARGUMENT(0),
    UNLESS_SKIP(0, 1),
    REFUSE(0),
    REFUSE(EPERM),
    ALLOW,
    UNLESS_SKIP(SYS_setrlimit, 3),
    LOAD_ARGUMENT(0),
    WHEN(RLIMIT_CORE),
    REFUSE(0),
    ALLOW,
};

static int install(const struct sock_filter *instructions, size_t size) {
    struct sock_fprog program = {(unsigned short)(size / sizeof *instructions), (struct sock_filter *)instructions};
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

int confinement_install_filter(int without_unix_sockets, int without_dumps) {
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
    if (without_unix_sockets && install(unix_filter, sizeof unix_filter) != 0) return -1;
    if (without_dumps && install(dump_filter, sizeof dump_filter) != 0) return -1;
    return install(filter, sizeof filter);
}
