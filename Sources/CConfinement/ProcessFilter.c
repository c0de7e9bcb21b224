// The system call filters of our own process. That of confined commands is in Privileges.c.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "CConfinement.h"

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "the system call filters are written for x86_64 and aarch64"
#endif
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "arguments are loaded as on little-endian machines"
#endif

// MARK: Tables
//
// A call that some Linux has and another has not is left out where it is unknown to the headers.

// What only somebody who executes code of their own would call here, and who would go on to something else if it failed:
// the process ends, and doors stay closed. No library is known to try any of these by itself.
static const int deadly[] = {
    SYS_ptrace, SYS_process_vm_writev,
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load, SYS_reboot,
    SYS_swapon, SYS_swapoff, SYS_acct, SYS_pivot_root, SYS_chroot, SYS_move_mount, SYS_fsmount,
#if defined(__x86_64__)
    SYS_iopl, SYS_ioperm, SYS_modify_ldt,
#endif
};

// What a library, a profiler or the handler of a crash might try, in this version or the next: it fails, as it does in
// many containers, and so does whatever it was for. The work that all sandboxes depend on goes on.
static const int refused[] = {
    // Programs are neither executed nor forked once all is set up.
    SYS_execve, SYS_execveat,
#if defined(__x86_64__)
    SYS_fork, SYS_vfork,
#endif
    SYS_process_vm_readv, SYS_personality, SYS_kcmp, SYS_perf_event_open, SYS_userfaultfd,
    SYS_keyctl, SYS_add_key, SYS_request_key,
    SYS_quotactl, SYS_sethostname, SYS_setdomainname, SYS_syslog, SYS_open_by_handle_at, SYS_fanotify_init,
    SYS_open_tree, SYS_fsopen, SYS_fsconfig, SYS_fspick,
#ifdef SYS_pidfd_getfd
    SYS_pidfd_getfd,
#endif
#ifdef SYS_mount_setattr
    SYS_mount_setattr,
#endif
#ifdef SYS_quotactl_fd
    SYS_quotactl_fd,
#endif
};

// As if the kernel knew them not, which libraries are prepared for and no log has to tell of. io_uring does what other
// calls do, without them; the flags of clone3 lie in memory, where a filter sees nothing.
static const int unknown[] = {SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_clone3};

// MARK: Programs

struct program {
    struct sock_filter instructions[CONFINEMENT_FILTER_MAX];
    size_t count;
};

static void add(struct program *program, struct sock_filter instruction) {
    // Beyond the end it would be found by the kernel, or by the caller, who compares the count.
    if (program->count < CONFINEMENT_FILTER_MAX) program->instructions[program->count] = instruction;
    program->count++;
}

#define STATEMENT(code, k) add(program, (struct sock_filter)BPF_STMT((code), (k)))
#define JUMP(code, k, yes, no) add(program, (struct sock_filter)BPF_JUMP((code), (k), (yes), (no)))
#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static void load(struct program *program, size_t offset) { STATEMENT(BPF_LD | BPF_W | BPF_ABS, (__u32)offset); }

// The low half of an argument: the kernel itself reads those that are looked at here as 32-bit numbers, or refuses what
// is above.
static void load_argument(struct program *program, int number) {
    load(program, offsetof(struct seccomp_data, args) + (size_t)number * sizeof(__u64));
}

static void answer(struct program *program, __u32 action) { STATEMENT(BPF_RET | BPF_K, action); }

// If the loaded number is `value`, answers with `action`.
static void answer_when(struct program *program, __u32 value, __u32 action) {
    JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
    answer(program, action);
}

static void answer_each(struct program *program, const int *calls, size_t count, __u32 action) {
    for (size_t index = 0; index < count; index++) answer_when(program, (__u32)calls[index], action);
}

static const __u32 no = SECCOMP_RET_ERRNO | EPERM, yes = SECCOMP_RET_ALLOW;

// For `call`: whether its argument, under `mask`, is one of the values says what happens. Other calls go on behind.
static void decide(
    struct program *program, int call, int argument, __u32 mask, const __u32 *values, size_t count, __u32 found,
    __u32 otherwise) {
    // What is skipped for other calls: two loads, the mask, two for each value, the last answer.
    JUMP(BPF_JMP | BPF_JEQ | BPF_K, (__u32)call, 0, (__u8)(3 + 2 * count));
    load_argument(program, argument);
    STATEMENT(BPF_ALU | BPF_AND | BPF_K, mask);
    for (size_t index = 0; index < count; index++) answer_when(program, values[index], found);
    answer(program, otherwise);
}

#define DECIDE(call, argument, mask, found, otherwise, ...)                                                      \
    do {                                                                                                          \
        const __u32 values[] = {__VA_ARGS__};                                                                     \
        decide(program, (call), (argument), (mask), values, COUNT(values), (found), (otherwise));                 \
    } while (0)

static const __u32 all = 0xffffffff;

static void begin(struct program *program) {
    // A foreign table of system calls has other numbers for the same calls.
    load(program, offsetof(struct seccomp_data, arch));
    JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCH, 1, 0);
    answer(program, SECCOMP_RET_KILL_PROCESS);
    load(program, offsetof(struct seccomp_data, nr));
#if defined(__x86_64__)
    // x32: bit 30 of the number.
    JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1);
    answer(program, SECCOMP_RET_KILL_PROCESS);
#endif
}

// For every thread: what follows is closed, all else is open. Calls that are judged by their number alone cost nearly
// nothing where the kernel remembers them (since 5.11).
static void write_process(struct program *program, int makes_networks) {
    begin(program);
    answer_each(program, deadly, COUNT(deadly), SECCOMP_RET_KILL_PROCESS);
    answer_each(program, refused, COUNT(refused), no);
    // Threads are made, processes are not, and a thread is made in the namespaces of its process.
    DECIDE(
        SYS_clone, 0,
        CLONE_THREAD | CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |
            CLONE_NEWCGROUP,
        yes, no, CLONE_THREAD);
    if (makes_networks) {
        DECIDE(SYS_unshare, 0, all, yes, no, CLONE_NEWNET);
        DECIDE(SYS_setns, 1, all, yes, no, CLONE_NEWNET);
        DECIDE(SYS_mount, 3, all, yes, no, MS_BIND);
        DECIDE(SYS_umount2, 1, all, yes, no, MNT_DETACH | UMOUNT_NOFOLLOW);
    } else {
        const int calls[] = {SYS_unshare, SYS_setns, SYS_mount, SYS_umount2};
        answer_each(program, calls, COUNT(calls), no);
    }
    DECIDE(SYS_socket, 0, all, yes, no, AF_INET, AF_INET6, AF_NETLINK, AF_UNIX);
    DECIDE(SYS_socketpair, 0, all, yes, no, AF_UNIX);
    // What programs are attached to a network is asked before it is guarded: BPF_PROG_QUERY, which changes nothing.
    DECIDE(SYS_bpf, 0, all, yes, no, BPF_PROG_QUERY);
    // What types into a terminal as if the user had.
    DECIDE(SYS_ioctl, 1, all, no, yes, TIOCSTI, 0x541C /* TIOCLINUX */);
    answer(program, yes);
}

// Beside it, for every thread: a filter of its own, for a filter is told to the kernel's log as a whole or not at all.
static void write_unknown(struct program *program) {
    load(program, offsetof(struct seccomp_data, nr));
    answer_each(program, unknown, COUNT(unknown), SECCOMP_RET_ERRNO | ENOSYS);
    answer(program, yes);
}

static void write_program(struct program *program, enum confinement_filter filter) {
    program->count = 0;
    if (filter == CONFINEMENT_FILTER_UNKNOWN) {
        write_unknown(program);
    } else {
        write_process(program, filter == CONFINEMENT_FILTER_NETWORKS);
    }
}

size_t confinement_filter_bytes(enum confinement_filter filter, void *bytes, size_t capacity) {
    struct program program;
    write_program(&program, filter);
    size_t length = program.count * sizeof program.instructions[0];
    if (program.count > CONFINEMENT_FILTER_MAX || length > capacity) return 0;
    __builtin_memcpy(bytes, program.instructions, length);
    return length;
}

// MARK: Installing

int confinement_forbid_privileges(void) { return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }

void confinement_name_thread(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }

int confinement_filter(enum confinement_filter filter) {
    struct program program;
    write_program(&program, filter);
    if (program.count > CONFINEMENT_FILTER_MAX) {
        errno = E2BIG;
        return -1;
    }
    struct sock_fprog description = {(unsigned short)program.count, program.instructions};
    // What is refused is told to the kernel's log; and the processor speculates as before, for no code of others runs here
    // (kernels before 5.16 would slow the thread down). Kernels that know neither go without.
    unsigned long log = filter == CONFINEMENT_FILTER_UNKNOWN ? 0 : SECCOMP_FILTER_FLAG_LOG;
    const unsigned long extras[] = {log | SECCOMP_FILTER_FLAG_SPEC_ALLOW, log, 0};
    long result = -1;
    for (size_t index = 0; index < COUNT(extras); index++) {
        result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC | extras[index], &description);
        if (result == 0 || (result < 0 && errno != EINVAL)) break;
    }
    // The number of a thread that has another filter, which was not made to take this one.
    if (result > 0) errno = ESRCH;
    return result == 0 ? 0 : -1;
}
