#define _GNU_SOURCE
#include "CConfinement.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static int say(int channel, int32_t kind, int32_t value, int32_t detail) {
    struct confinement_message message = {kind, value, detail};
    return send(channel, &message, sizeof message, MSG_NOSIGNAL) == sizeof message ? 0 : -1;
}

// Tells the supervisor what failed and ends; errno is read first.
static _Noreturn void fail(const struct confinement_plan *plan, int32_t stage) {
    say(plan->channel, CONFINEMENT_FAILED, stage, errno);
    _exit(125);
}

// MARK: The mount steps

static int write_file(const struct confinement_step *step) {
    int file = open(step->target, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, step->mode);
    if (file < 0) return -1;
    size_t done = 0;
    while (done < step->length) {
        ssize_t count = write(file, step->data + done, step->length - done);
        if (count < 0 && errno != EINTR) return -1;
        if (count > 0) done += (size_t)count;
    }
    if (fchmod(file, step->mode) != 0) return -1;
    return close(file);
}

static int make_directory(const struct confinement_step *step) {
    if (mkdir(step->target, step->mode) == 0) return chmod(step->target, step->mode);
    return errno == EEXIST ? 0 : -1;
}

static int carry_out(const struct confinement_step *step) {
    switch (step->operation) {
    case CONFINEMENT_MOUNT: return mount(step->source, step->target, step->type, step->flags, step->data);
    case CONFINEMENT_UNMOUNT: return umount2(step->target, MNT_DETACH);
    case CONFINEMENT_DIRECTORY: return make_directory(step);
    case CONFINEMENT_FILE: return write_file(step);
    case CONFINEMENT_LINK: return symlink(step->source, step->target);
    case CONFINEMENT_READ_ONLY: {
        struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
        return (int)syscall(SYS_mount_setattr, AT_FDCWD, step->target, AT_RECURSIVE, &attributes, sizeof attributes);
    }
    default: errno = EINVAL; return -1;
    }
}

static void set_up_mounts(const struct confinement_plan *plan, size_t first, size_t end) {
    for (size_t index = first; index < end; index++) {
        const struct confinement_step *step = &plan->steps[index];
        if (carry_out(step) == 0) continue;
        if (errno != 0 && (errno == step->tolerated[0] || errno == step->tolerated[1])) continue;
        fail(plan, CONFINEMENT_STAGE_STEPS + (int32_t)index);
    }
}

// MARK: The command

// `note` stands behind what the kernel says.
static void complain(const char *name, int error, const char *note) {
    const char *reason = strerrordesc_np(error);
    if (reason == NULL) reason = "unknown error";
    const char *parts[] = {"sandgate: cannot run ", name, ": ", reason, note, "\n"};
    enum { COUNT = sizeof parts / sizeof parts[0] };
    struct iovec pieces[COUNT];
    for (int i = 0; i < COUNT; i++) pieces[i] = (struct iovec){(void *)parts[i], strlen(parts[i])};
    if (writev(STDERR_FILENO, pieces, COUNT) < 0) return;
}

// What a person is not told by EPERM: capabilities(7), "Safety checking for capability-dumb binaries".
static const char *note_on(const char *file, int error) {
    if (error != EPERM || getxattr(file, "security.capability", NULL, 0) <= 0) return "";
    return ": the file has capabilities (getcap shows them) that nothing in a sandbox can have";
}

// Executes the first candidate that can be, as execvpe does, and otherwise ends with 127 (not found) or 126.
static _Noreturn void execute(const struct confinement_plan *plan) {
    int error = ENOENT;
    const char *note = "";
    for (const char *const *file = plan->candidates; *file != NULL; file++) {
        execve(*file, plan->arguments, plan->environment);
        if (errno == ENOEXEC) {
            plan->shell_arguments[1] = (char *)*file;
            execve("/bin/sh", plan->shell_arguments, plan->environment);
        }
        if (errno == ENOENT || errno == ENOTDIR) continue;
        error = errno;
        note = note_on(*file, error);
        if (error != EACCES) break;
    }
    complain(plan->name, error, note);
    _exit(error == ENOENT ? 127 : 126);
}

static _Noreturn void execute_setup(const struct confinement_plan *plan) {
    execve("/bin/sh", plan->setup_arguments, plan->environment);
    complain("/bin/sh", errno, "");
    _exit(126);
}

static void give_terminal(pid_t group) {
    int terminal = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal < 0) return;
    ioctl(terminal, TIOCSPGRP, &group);  // SIGTTOU is blocked, so this works from the background
    close(terminal);
}

static _Noreturn void become_command(const struct confinement_plan *plan, int is_setup, int has_terminal) {
    setpgid(0, 0);
    if (has_terminal) give_terminal(getpid());
    struct rlimit limit;
    if (plan->descriptor_limit > 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = (rlim_t)plan->descriptor_limit;
        if (limit.rlim_cur > limit.rlim_max) limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC);
    if (is_setup) execute_setup(plan);
    execute(plan);
}

static pid_t start_command(const struct confinement_plan *plan, int is_setup, int has_terminal) {
    // Not fork(): it takes locks that a thread of the supervisor may have held when init was cloned.
    pid_t command = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (command == 0) become_command(plan, is_setup, has_terminal);
    if (command > 0) setpgid(command, command);  // whoever is first; a signal must find the group
    return command;
}

// MARK: Init

// What init runs: the set-up, if there is one, and then the command.
struct running {
    pid_t process;  // 0 while nothing is released
    int is_setup;
};

static void send_signal(pid_t command, int signal, int to_group) {
    if (command <= 0) return;
    pid_t group = getpgid(command);
    kill(to_group && group > 0 ? -group : command, signal);
}

// Takes one message. Ends when the supervisor is gone.
static void take_order(const struct confinement_plan *plan, struct running *running) {
    struct confinement_message order;
    ssize_t count = recv(plan->channel, &order, sizeof order, 0);
    if (count < 0 && errno == EINTR) return;
    if (count != sizeof order) _exit(0);
    switch (order.kind) {
    case CONFINEMENT_RELEASE:
        if (running->process != 0) break;
        running->process = start_command(plan, running->is_setup, order.value);
        if (running->process < 0) fail(plan, CONFINEMENT_STAGE_COMMAND);
        break;
    case CONFINEMENT_SIGNAL: send_signal(running->process, order.value, order.detail); break;
    case CONFINEMENT_RESUME:
        if (order.value && running->process > 0) give_terminal(getpgid(running->process));
        send_signal(running->process, SIGCONT, 1);
        break;
    default: break;
    }
}

// Reaps whatever ended. Ends when the command did; the kernel then kills everything else in the pid namespace. What the
// set-up left running goes on.
static void reap_children(const struct confinement_plan *plan, struct running *running) {
    int status;
    pid_t child;
    while ((child = waitpid(-1, &status, WNOHANG | WUNTRACED | __WALL)) > 0) {
        if (child != running->process) continue;
        if (WIFSTOPPED(status)) {
            say(plan->channel, CONFINEMENT_STOPPED, WSTOPSIG(status), 0);
            continue;
        }
        if (running->is_setup) {
            *running = (struct running){0, 0};
            say(plan->channel, CONFINEMENT_SET_UP, status, 0);
            continue;
        }
        say(plan->channel, CONFINEMENT_ENDED, status, 0);
        _exit(0);
    }
}

static _Noreturn void supervise(const struct confinement_plan *plan, int children) {
    struct running running = {0, plan->setup_arguments != NULL};
    struct pollfd sources[2] = {{plan->channel, POLLIN, 0}, {children, POLLIN, 0}};
    for (;;) {
        if (poll(sources, 2, -1) < 0) {
            if (errno == EINTR) continue;
            _exit(125);
        }
        if (sources[1].revents != 0) {
            struct signalfd_siginfo info;
            if (read(children, &info, sizeof info) < 0 && errno != EAGAIN) _exit(125);
            reap_children(plan, &running);
        }
        if (sources[0].revents != 0) take_order(plan, &running);
    }
}

// Default actions for every signal but those that stay ignored; all blocked, so that init is woken by its signalfd
// alone. The kernel ignores what is sent to pid 1 from inside its namespace anyway.
static int settle_signals(const struct confinement_plan *plan) {
    for (int number = 1; number < _NSIG; number++) {
        int ignored = (plan->ignored_signals >> (number - 1)) & 1;
        signal(number, ignored ? SIG_IGN : SIG_DFL);
    }
    sigset_t all, children;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    return signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
}

// Puts the command's standard descriptors in place, each first out of the way of the others.
static int place_standard(const struct confinement_plan *plan) {
    int copies[3];
    for (int i = 0; i < 3; i++) {
        copies[i] = plan->standard[i] == i ? -1 : fcntl(plan->standard[i], F_DUPFD, 3);
        if (copies[i] < 0 && plan->standard[i] != i) return -1;
    }
    for (int i = 0; i < 3; i++) {
        if (copies[i] >= 0 && dup2(copies[i], i) < 0) return -1;
    }
    return 0;
}

// Closes everything but the standard descriptors and the channel.
static int close_inherited(int channel) {
    if (channel > 3 && syscall(SYS_close_range, 3U, (unsigned)channel - 1, 0) != 0) return -1;
    return (int)syscall(SYS_close_range, (unsigned)channel + 1, ~0U, 0);
}

static int write_map(const char *path, const char *contents) {
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0) return -1;
    ssize_t length = (ssize_t)strlen(contents);
    if (write(file, contents, (size_t)length) != length) return -1;
    return close(file);
}

// Gives this process, first of a new user namespace, the ids that its user has. The files belong to root while the
// process is hidden, as it is by its supervisor; nobody is in its namespaces yet who could use the moment.
static int settle_user(const struct confinement_plan *plan) {
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0) return -1;
    if (write_map("/proc/self/setgroups", "deny") != 0) return -1;
    if (write_map("/proc/self/gid_map", plan->group_map) != 0) return -1;
    if (write_map("/proc/self/uid_map", plan->user_map) != 0) return -1;
    return confinement_hide_process();
}

// A limit of one byte is the kernel's mark of a process whose dump no program is started for (coredump_pipe in its
// fs/coredump.c); at 0 one is. The filter keeps it from being lowered. Where 0 is the hard limit and this process may not raise
// it, it stays so.
static void forgo_dumps(void) {
    const struct rlimit limit = {1, 1};
    setrlimit(RLIMIT_CORE, &limit);
}

static _Noreturn void become_init(const struct confinement_plan *plan, int by_main_thread) {
    // "Parent" means the thread that cloned us, so only for the one that lives as long as its program. The channel's end
    // says the same in every case, and also if the supervisor was gone before this call.
    if (by_main_thread) prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "sandgate-init");
    // This copy of the supervisor would show the command its command line: where the policy and the records are.
    for (size_t i = 0; i < plan->own_length; i++) plan->own_arguments[i] = "sandgate-init"[i < 13 ? i : 13];
    if (plan->user_namespace >= 0) {
        if (settle_user(plan) != 0) fail(plan, CONFINEMENT_STAGE_USER);
    } else if (setns(plan->network, CLONE_NEWNET) != 0) {
        fail(plan, CONFINEMENT_STAGE_NETWORK);
    }
    if (place_standard(plan) != 0) fail(plan, CONFINEMENT_STAGE_DESCRIPTORS);
    if (close_inherited(plan->channel) != 0) fail(plan, CONFINEMENT_STAGE_DESCRIPTORS);
    int children = settle_signals(plan);
    if (children < 0) fail(plan, CONFINEMENT_STAGE_DESCRIPTORS);
    set_up_mounts(plan, plan->ushered_steps, plan->step_count);
    // Always, and after the mounts: a working directory from before could lie below what is now hidden.
    if (chdir(plan->directory) != 0) fail(plan, CONFINEMENT_STAGE_DIRECTORY);
    if (plan->without_dumps) forgo_dumps();
    if (confinement_drop_capabilities(plan->capabilities) != 0) fail(plan, CONFINEMENT_STAGE_CAPABILITIES);
    if (confinement_hide_process() != 0) fail(plan, CONFINEMENT_STAGE_PRIVILEGES);
    if (confinement_install_filter(plan->without_unix_sockets, plan->without_dumps) != 0) fail(plan, CONFINEMENT_STAGE_SECCOMP);
    if (say(plan->channel, CONFINEMENT_READY, 0, 0) != 0) _exit(125);
    supervise(plan, children);
}

static long clone_init(uint64_t more_flags, uint64_t exit_signal, int *pidfd) {
    struct clone_args arguments = {
        .flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_PIDFD | more_flags,
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .exit_signal = exit_signal,
    };
    return syscall(SYS_clone3, &arguments, sizeof arguments);
}

// MARK: The usher

// Init's process id, where the supervisor sees it too.
typedef volatile pid_t *shared_pid;

static _Noreturn void become_usher(const struct confinement_plan *plan, int by_main_thread, shared_pid init) {
    if (setns(plan->user_namespace, CLONE_NEWUSER) != 0) fail(plan, CONFINEMENT_STAGE_USER);
    if (setns(plan->network, CLONE_NEWNET) != 0) fail(plan, CONFINEMENT_STAGE_NETWORK);
    if (unshare(CLONE_NEWNS) != 0) fail(plan, CONFINEMENT_STAGE_MOUNTS);
    set_up_mounts(plan, 0, plan->ushered_steps);
    int unused;
    // The supervisor's child, not ours: a parent that clones as CLONE_PARENT names no signal.
    long child = clone_init(CLONE_NEWUSER | CLONE_PARENT, 0, &unused);
    if (child == 0) become_init(plan, by_main_thread);
    if (child < 0) fail(plan, CONFINEMENT_STAGE_USER);
    *init = (pid_t)child;
    _exit(0);
}

static int start_ushered(const struct confinement_plan *plan, int by_main_thread, int *pidfd) {
    shared_pid init = mmap(NULL, sizeof *init, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (init == MAP_FAILED) return -1;
    pid_t usher = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (usher == 0) become_usher(plan, by_main_thread, init);
    int result = -1, error = errno;
    if (usher > 0) {
        while (waitpid(usher, NULL, __WALL) < 0 && errno == EINTR) {}
        result = *init;
        // Init is our child and not reaped, so the number is still its own.
        if (result > 0 && (*pidfd = (int)syscall(SYS_pidfd_open, result, 0)) < 0) {
            error = errno;
            kill(result, SIGKILL);
            waitpid(result, NULL, __WALL);
            result = -1;
        }
    }
    munmap((void *)init, sizeof *init);
    errno = error;
    return result;
}

int confinement_start(const struct confinement_plan *plan, int *pidfd) {
    int by_main_thread = getpid() == gettid();
    // No handler of the supervisor may run in the copy.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    long child;
    if (plan->user_namespace >= 0) {
        child = start_ushered(plan, by_main_thread, pidfd);
    } else {
        child = clone_init(0, SIGCHLD, pidfd);
        if (child == 0) become_init(plan, by_main_thread);
    }
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return (int)child;
}

int confinement_signal(int pidfd, int signal) {
    return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
}

int confinement_reap(int pidfd, int hang, int *code, int *status) {
    siginfo_t info = {0};
    if (waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | (hang ? 0 : WNOHANG)) != 0) return -1;
    if (info.si_pid == 0) return 0;
    *code = info.si_code;
    *status = info.si_status;
    return 1;
}
