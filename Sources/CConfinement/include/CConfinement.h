// Starts a command in namespaces of its own. What runs here runs between clone and exec in a copy of a program with
// threads, so it may call nothing but the kernel: no allocation, no locks, no stdio, no Swift. Everything it needs is
// laid out beforehand by the Confinement module, which also holds the reasons for what is mounted, hidden and dropped.
//
//     supervisor ──clone3──▶ init, pid 1 of a new pid namespace
//                              joins the network namespace, carries out the mount steps, drops privileges,
//                              says READY, waits for RELEASE
//                              ──clone──▶ the command: own process group, terminal if granted, exec
//                              reaps, passes signals on, says STOPPED and ENDED
//
//     Without root (user_namespace >= 0) an usher goes before, because only a process with one thread may join a user
//     namespace, and because what init is in must be one that the command's uid does not own:
//
//     supervisor ──clone3──▶ usher: joins the user namespace and the network namespace, carries out the first mount steps
//                              ──clone3──▶ init, in a user namespace below that one, and a child of the supervisor
//
//     The channel between the two closes when the supervisor ends, however it ends: then init ends, and with it the
//     kernel kills every process of the pid namespace.
#ifndef CCONFINEMENT_H
#define CCONFINEMENT_H

#include <stddef.h>
#include <stdint.h>

// What a mount step does.
enum confinement_operation {
    CONFINEMENT_MOUNT,      // mount(source, target, type, flags, data)
    CONFINEMENT_UNMOUNT,    // umount2(target, MNT_DETACH)
    CONFINEMENT_DIRECTORY,  // mkdir(target), mode exactly as given; one that exists is fine
    CONFINEMENT_FILE,       // creates target with the contents given; one that exists is written anew
    CONFINEMENT_LINK,       // symlink(source, target)
    CONFINEMENT_READ_ONLY,  // makes the mount at target and all below it read-only
};

// One step of the mount set-up, carried out by init in order. The first that fails ends the set-up.
struct confinement_step {
    int32_t operation;
    uint32_t mode;           // permission bits for DIRECTORY and FILE
    uint64_t flags;          // MS_* for MOUNT
    const char *source;
    const char *target;
    const char *type;
    const char *data;        // options for MOUNT, contents for FILE
    size_t length;           // of the contents
    int32_t tolerated[2];    // error numbers that count as success; 0 for none
};

// Everything that init and the command need. All of it stays readable until confinement_start has returned.
struct confinement_plan {
    int32_t network;         // descriptor of the network namespace
    int32_t user_namespace;  // descriptor of the user namespace that the network namespace belongs to; -1 for ours
    const char *user_map;    // contents of uid_map and gid_map of the command's own user namespace
    const char *group_map;
    size_t ushered_steps;    // so many of the steps are the usher's; 0 without one
    int32_t channel;         // init's end of a SOCK_SEQPACKET pair, 3 or higher
    int32_t standard[3];     // descriptors that become 0, 1 and 2
    int32_t descriptor_limit;  // soft RLIMIT_NOFILE for the command; 0 leaves it as it is
    const struct confinement_step *steps;
    size_t step_count;
    const char *directory;   // the command's working directory, absolute
    const char *name;        // the command as the user wrote it, for messages
    const char *const *candidates;  // files to execute, the first that can be is taken; NULL at the end
    char *const *arguments;
    char *own_arguments;     // the supervisor's, as /proc/PID/cmdline shows them
    size_t own_length;       // in bytes; all of them are ours to write to
    char *const *setup_arguments;  // a shell's, to be run before the command; NULL: there is no set-up
    char **shell_arguments;  // "sh", a place for the file, the arguments: for a script without #!
    char *const *environment;
    uint64_t capabilities;   // bits that the command keeps
    uint64_t ignored_signals;  // bit n-1: signal n stays ignored in the command
    int32_t without_unix_sockets;  // 1: the command can make none that reaches further than its pair
    int32_t without_dumps;   // 1: when the command crashes, the kernel starts no program for it
};

// What goes over the channel.
struct confinement_message {
    int32_t kind;
    int32_t value;
    int32_t detail;
};

enum confinement_message_kind {
    // From init.
    CONFINEMENT_FAILED,   // value: a stage, or CONFINEMENT_STAGE_STEPS + the step's index; detail: error number
    CONFINEMENT_READY,    // all is set up; the command has not been started
    CONFINEMENT_STOPPED,  // value: the signal that stopped the command
    CONFINEMENT_SET_UP,   // value: the wait status of the set-up; the command waits to be released in its turn
    CONFINEMENT_ENDED,    // value: the command's wait status
    // From the supervisor.
    CONFINEMENT_RELEASE,  // start the set-up, or when there is none any more the command; value: 1 to give it the terminal
    CONFINEMENT_SIGNAL,   // value: a signal; detail: 1 to send it to the command's process group
    CONFINEMENT_RESUME,   // continue the command's process group; value: 1 to give it the terminal first
};

enum confinement_stage {
    CONFINEMENT_STAGE_USER,
    CONFINEMENT_STAGE_NETWORK,
    CONFINEMENT_STAGE_MOUNTS,
    CONFINEMENT_STAGE_DESCRIPTORS,
    CONFINEMENT_STAGE_DIRECTORY,
    CONFINEMENT_STAGE_CAPABILITIES,
    CONFINEMENT_STAGE_PRIVILEGES,
    CONFINEMENT_STAGE_SECCOMP,
    CONFINEMENT_STAGE_COMMAND,
    CONFINEMENT_STAGE_STEPS,
};

// Clones init into new pid, mount and IPC namespaces. Returns its process id and a close-on-exec pidfd, or -1 and errno,
// or 0 when the usher failed and has said so over the channel.
int confinement_start(const struct confinement_plan *plan, int *pidfd);

// Takes the calling thread's capabilities down to `keep`, for good. 0, or -1 and errno.
int confinement_drop_capabilities(uint64_t keep);

// Sets no_new_privs and installs the system call filter on the calling thread, and with `without_unix_sockets` one more, and
// with `without_dumps` another. 0, or -1 and errno.
int confinement_install_filter(int without_unix_sockets, int without_dumps);

// MARK: Our own process

// Makes every capability count that the calling thread may make count; none is inherited. 0, or -1 and errno.
int confinement_take_up_capabilities(void);

// Takes the calling thread's capabilities down to those of `keep` that it has; none is inherited by what it executes.
// Where it may (CAP_SETPCAP), also empties its bounding set. 0, or -1 and errno.
int confinement_keep_capabilities(uint64_t keep);

// Which system call filter.
enum confinement_filter {
    CONFINEMENT_FILTER_PROCESS,   // for a process that has set everything up
    CONFINEMENT_FILTER_NETWORKS,  // the same, but that network namespaces are made, entered and mounted
    CONFINEMENT_FILTER_UNKNOWN,   // beside either: calls that are answered as if the kernel knew them not
};

// The most instructions of a filter.
#define CONFINEMENT_FILTER_MAX 256

// The filter's program, an array of struct sock_filter; its length in bytes, or 0 when there is no room for it.
size_t confinement_filter_bytes(enum confinement_filter filter, void *bytes, size_t capacity);

// Installs a filter on all threads. It takes no_new_privs, or CAP_SYS_ADMIN. 0, or -1 and errno.
int confinement_filter(enum confinement_filter filter);

// Sets no_new_privs on the calling thread. 0, or -1 and errno.
int confinement_forbid_privileges(void);

// access(2) for the calling thread as if it had neither CAP_DAC_OVERRIDE nor CAP_DAC_READ_SEARCH. 0, or -1 and errno: ENOSYS
// before Linux 5.8.
int confinement_access_without_override(const char *path, int mode);

// Names the calling thread; the kernel keeps 15 bytes.
void confinement_name_thread(const char *name);

// prctl(PR_SET_DUMPABLE, 0): no ptrace, no /proc/PID/mem, no pidfd_getfd without CAP_SYS_PTRACE. 0, or -1 and errno.
int confinement_hide_process(void);

// pidfd_send_signal(2). 0, or -1 and errno.
int confinement_signal(int pidfd, int signal);

// Waits for the process behind a pidfd; hang says whether to block. 1 when reaped, 0 when still running, -1 and errno.
int confinement_reap(int pidfd, int hang, int *code, int *status);

#endif
