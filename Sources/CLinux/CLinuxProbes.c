#define _GNU_SOURCE
#include "CLinuxProbes.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int clinux_probe_conntrack(void) {
    int failure = 0;
    int descriptor = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (descriptor < 0) return errno;
    struct {
        struct nlmsghdr header;
        struct nfgenmsg family;
    } request = {
        .header = {
            .nlmsg_len = sizeof(request),
            .nlmsg_type = (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET,
            .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
            .nlmsg_seq = 1,
        },
        .family = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0},
    };
    if (send(descriptor, &request, sizeof(request), 0) < 0) failure = errno;
    while (failure == 0) {
        struct pollfd source = {.fd = descriptor, .events = POLLIN};
        union {
            struct nlmsghdr header;
            char bytes[16384];
        } reply;
        if (poll(&source, 1, 2000) != 1) {
            failure = ETIMEDOUT;
            break;
        }
        ssize_t length = recv(descriptor, &reply, sizeof(reply), 0);
        if (length < (ssize_t)sizeof(struct nlmsghdr)) {
            failure = length < 0 ? errno : EPROTO;
            break;
        }
        if (reply.header.nlmsg_type == NLMSG_ERROR) {
            failure = -((struct nlmsgerr *)NLMSG_DATA(&reply.header))->error;
            break;
        }
        // Connections come in datagrams of their own, before the one that ends the list.
        if (reply.header.nlmsg_type == NLMSG_DONE) break;
    }
    close(descriptor);
    return failure;
}

// The child of a process that may have threads: system calls alone.
static void probe_in_child(uid_t user, int answer) {
    int result[2] = {0, 0};
    if (geteuid() == 0) {
        result[0] = 1;
        if (syscall(SYS_setgroups, 0, NULL) != 0 || syscall(SYS_setresgid, user, user, user) != 0
            || syscall(SYS_setresuid, user, user, user) != 0)
            goto failed;
        // Another user's /proc/self is root's until then.
        if (prctl(PR_SET_DUMPABLE, 1) != 0) goto failed;
    }
    uid_t self = (uid_t)syscall(SYS_geteuid);
    result[0] = 2;
    if (unshare(CLONE_NEWUSER) != 0) goto failed;
    result[0] = 3;
    char map[32];
    int length = snprintf(map, sizeof(map), "0 %u 1\n", self);
    int descriptor = open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC);
    if (descriptor < 0 || write(descriptor, map, (size_t)length) != length) goto failed;
    result[0] = 4;
    if (unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC) != 0) goto failed;
    result[0] = 0;
    (void)!write(answer, result, sizeof(result));
    _exit(0);
failed:
    result[1] = errno;
    (void)!write(answer, result, sizeof(result));
    _exit(1);
}

int clinux_probe_user_namespace(unsigned user, int *step) {
    int ends[2];
    *step = 0;
    if (pipe2(ends, O_CLOEXEC) != 0) return errno;
    pid_t child = fork();
    if (child == 0) probe_in_child((uid_t)user, ends[1]);
    int failure = child < 0 ? errno : 0;
    close(ends[1]);
    if (child > 0) {
        int result[2] = {0, EPROTO};
        if (read(ends[0], result, sizeof(result)) == sizeof(result)) *step = result[0];
        failure = result[1];
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    close(ends[0]);
    return failure;
}
