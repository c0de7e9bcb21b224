// Linux system calls and constants that Swift's importer cannot reach:
// function-like macros, variadic functions, GNU extensions and headers that Glibc's module map leaves out.
// Nothing here decides anything.
#ifndef CLINUX_H
#define CLINUX_H

#include <stdint.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "CLinuxProbes.h"
#include "CLinuxRoute.h"
#include "CLinuxScreen.h"

// epoll_ctl with the 64-bit user datum; struct epoll_event is packed and its union is awkward in Swift.
int clinux_epoll_ctl(int epoll, int operation, int descriptor, uint32_t events, uint64_t datum);

// The user datum of a returned event.
static inline uint64_t clinux_event_datum(const struct epoll_event *event) { return event->data.u64; }

// accept4(2) with SOCK_NONBLOCK and SOCK_CLOEXEC.
int clinux_accept(int descriptor, struct sockaddr *address, socklen_t *length);

// pipe2(2) with O_NONBLOCK and O_CLOEXEC.
int clinux_pipe(int descriptors[2]);

// pthread_clockjoin_np(3): waits for a thread's end, until `deadline` in nanoseconds of CLOCK_MONOTONIC. 0, or the error
// number. A pthread_t by its type: with <pthread.h>, struct timespec would be this module's for every Swift file.
int clinux_join(unsigned long thread, int64_t deadline);

// posix_spawn_file_actions_addchdir_np(3), which <spawn.h> hides without _GNU_SOURCE.
int clinux_spawn_in_directory(posix_spawn_file_actions_t *actions, const char *path);

// renameat2(2) with RENAME_NOREPLACE; where the file system does not know it, rename(2) to a name that is free now.
int clinux_rename_to_new(const char *path, const char *new_path);

// fcntl(2), F_SETPIPE_SZ: the new capacity in bytes, or -1.
int clinux_set_pipe_size(int descriptor, int size);

// splice(2) without offsets, with SPLICE_F_MOVE and SPLICE_F_NONBLOCK.
ssize_t clinux_splice(int source, int sink, size_t length);

// ioctl(2), SIOCOUTQ: how many bytes of a stream the peer has not acknowledged, or -1.
int clinux_unsent_bytes(int descriptor);

// The most datagrams that one call takes or sends.
#define CLINUX_DATAGRAMS_MAX 16

// One of several datagrams. Receiving, `length` is the room at `bytes` before and the datagram's length after, cut to the
// room; `address` is where it comes from. Sending, where it goes.
struct clinux_datagram {
    void *bytes;
    size_t length;
    struct sockaddr_storage address;
    socklen_t address_length;
};

// recvmmsg(2), and sendmmsg(2) or sendto(2), with MSG_DONTWAIT, of at most CLINUX_DATAGRAMS_MAX: how many, or -1. Hidden
// without _GNU_SOURCE.
int clinux_receive_datagrams(int descriptor, struct clinux_datagram *datagrams, unsigned count);
int clinux_send_datagrams(int descriptor, struct clinux_datagram *datagrams, unsigned count);

// Has a raw ICMP or ICMPv6 socket receive nothing (ICMP_FILTER, ICMPV6_FILTER).
int clinux_block_icmp(int descriptor);

// The options that give a redirected connection's first destination; <linux/netfilter_ipv4.h> (level SOL_IP) and
// <linux/netfilter_ipv6/ip6_tables.h> (level SOL_IPV6).
extern const int clinux_so_original_dst;
extern const int clinux_ip6t_so_original_dst;

// struct ucred of SO_PEERCRED, which <sys/socket.h> hides without _GNU_SOURCE.
struct clinux_credentials {
    pid_t process;
    uid_t user;
    gid_t group;
};

// SO_PEERPIDFD (asm-generic/socket.h): a descriptor of the process at the other end; since Linux 6.5.
extern const int clinux_so_peerpidfd;

// The id of the process that a pidfd is of, from /proc/self/fdinfo; -1 when it has ended.
pid_t clinux_process_of_pidfd(int descriptor);

// pidfd_open(2), close-on-exec; -1 with ESRCH when there is no such process.
int clinux_pidfd_open(pid_t process);

// An AF_XDP socket (linux/if_xdp.h) that is bound to a queue of a device in the calling thread's network namespace, and
// neither sends nor receives: nobody else can bind one there while it is open. Its descriptor, close-on-exec, or -1.
int clinux_occupy_queue(unsigned device, unsigned queue);

// ioctl(2), NS_GET_NSTYPE: CLONE_NEWNET for a network namespace; -1 when the descriptor is of none.
int clinux_namespace_type(int descriptor);
extern const int clinux_network_namespace;

// ioctl(2), NS_GET_USERNS and NS_GET_PARENT: a descriptor of the user namespace that owns a namespace, or that is above a
// user namespace, close-on-exec; -1 with EPERM when it is out of reach.
int clinux_owning_user_namespace(int descriptor);
int clinux_parent_namespace(int descriptor);

// ioctl(2), TIOCGDEV: the device number of a terminal, the slave's for a pseudo-terminal's master and the real one for /dev/tty;
// -1 when the descriptor is of none.
long clinux_terminal_device(int descriptor);

// memfd_create(2), close-on-exec.
int clinux_memory_file(const char *name);

// Gives back the memory that only what was done so far needed: what was freed (malloc_trim(3)), and the pages of the program
// and its libraries, which come from their files again when they are used (MADV_DONTNEED).
void clinux_release_memory(void);

// The kernel's number of the mount that `path` lies in, symbolic links at its end not followed and nothing mounted on the way:
// statx(2) with STATX_MNT_ID; -1 with ENOSYS before Linux 5.8.
int64_t clinux_mount_of(const char *path);

// What kind of file system a descriptor's file lies in: the number of fstatfs(2), see <linux/magic.h>; -1 when it cannot be
// told.
long clinux_file_system_type(int descriptor);

// The most descriptors that go in one message.
#define CLINUX_DESCRIPTORS_MAX 32

// Sends one message with `count` descriptors (SCM_RIGHTS, at most CLINUX_DESCRIPTORS_MAX). The length sent, or -1.
ssize_t clinux_send_descriptors(int socket, const void *bytes, size_t length, const int *descriptors, size_t count);

// Receives one message; `descriptors` has room for CLINUX_DESCRIPTORS_MAX and gets `*count`, close-on-exec. The
// length, 0 at the end, or -1: with EMSGSIZE when something did not fit; no descriptor is left open then.
ssize_t clinux_receive_descriptors(int socket, void *bytes, size_t length, int *descriptors, size_t *count);

#endif
