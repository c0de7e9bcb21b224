#define _GNU_SOURCE
#include "CLinux.h"

#include <linux/if_xdp.h>
#include <linux/nsfs.h>
#include <linux/sockios.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <netinet/in.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netfilter_ipv6/ip6_tables.h>

const int clinux_so_original_dst = SO_ORIGINAL_DST;
const int clinux_ip6t_so_original_dst = IP6T_SO_ORIGINAL_DST;

int clinux_epoll_ctl(int epoll, int operation, int descriptor, uint32_t events, uint64_t datum) {
    struct epoll_event event = {.events = events, .data.u64 = datum};
    return epoll_ctl(epoll, operation, descriptor, &event);
}

int clinux_accept(int descriptor, struct sockaddr *address, socklen_t *length) {
    return accept4(descriptor, address, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

int clinux_pipe(int descriptors[2]) {
    return pipe2(descriptors, O_NONBLOCK | O_CLOEXEC);
}

int clinux_join(pthread_t thread, int64_t deadline) {
    struct timespec time = {.tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000};
    return pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &time);
}

int clinux_spawn_in_directory(posix_spawn_file_actions_t *actions, const char *path) {
    return posix_spawn_file_actions_addchdir_np(actions, path);
}

#ifdef SO_PEERPIDFD
const int clinux_so_peerpidfd = SO_PEERPIDFD;
#else
const int clinux_so_peerpidfd = 77;
#endif

pid_t clinux_process_of_pidfd(int descriptor) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", descriptor);
    FILE *file = fopen(path, "re");
    if (file == NULL) return -1;
    char line[128];
    int process = -1;
    while (fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "Pid: %d", &process) == 1) break;
    }
    fclose(file);
    return process > 0 ? process : -1;
}

int clinux_pidfd_open(pid_t process) {
    return (int)syscall(SYS_pidfd_open, process, 0);
}

const int clinux_network_namespace = CLONE_NEWNET;

int clinux_namespace_type(int descriptor) {
    return ioctl(descriptor, NS_GET_NSTYPE);
}

int clinux_owning_user_namespace(int descriptor) {
    return ioctl(descriptor, NS_GET_USERNS);
}

int clinux_parent_namespace(int descriptor) {
    return ioctl(descriptor, NS_GET_PARENT);
}

int clinux_rename_to_new(const char *path, const char *new_path) {
    if (renameat2(AT_FDCWD, path, AT_FDCWD, new_path, RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return -1;
    if (faccessat(AT_FDCWD, new_path, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        errno = EEXIST;
        return -1;
    }
    return rename(path, new_path);
}

long clinux_terminal_device(int descriptor) {
    unsigned device = 0;
    return ioctl(descriptor, TIOCGDEV, &device) == 0 ? (long)device : -1;
}

int clinux_memory_file(const char *name) {
    return memfd_create(name, MFD_CLOEXEC);
}

int64_t clinux_mount_of(const char *path) {
    struct statx status;
    int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC;
    if (statx(AT_FDCWD, path, flags, STATX_MNT_ID, &status) != 0) return -1;
    if (status.stx_mask & STATX_MNT_ID) return (int64_t)status.stx_mnt_id;
    errno = ENOSYS;
    return -1;
}

long clinux_file_system_type(int descriptor) {
    struct statfs information;
    return fstatfs(descriptor, &information) == 0 ? (long)((unsigned long)information.f_type & 0xffffffff) : -1;
}

int clinux_set_pipe_size(int descriptor, int size) {
    return fcntl(descriptor, F_SETPIPE_SZ, size);
}

ssize_t clinux_splice(int source, int sink, size_t length) {
    return splice(source, NULL, sink, NULL, length, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
}

int clinux_unsent_bytes(int descriptor) {
    int count = 0;
    return ioctl(descriptor, SIOCOUTQ, &count) == 0 ? count : -1;
}

// Aligned as CMSG_DATA and CMSG_FIRSTHDR want it.
union descriptor_message {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(int) * CLINUX_DESCRIPTORS_MAX)];
};

ssize_t clinux_send_descriptors(int socket, const void *bytes, size_t length, const int *descriptors, size_t count) {
    if (count > CLINUX_DESCRIPTORS_MAX) {
        errno = EINVAL;
        return -1;
    }
    union descriptor_message control = {0};
    struct iovec piece = {(void *)bytes, length};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    if (count > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        *header = (struct cmsghdr){CMSG_LEN(sizeof(int) * count), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(header), descriptors, sizeof(int) * count);
    }
    ssize_t sent;
    do sent = sendmsg(socket, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent;
}

ssize_t clinux_receive_descriptors(int socket, void *bytes, size_t length, int *descriptors, size_t *count) {
    union descriptor_message control;
    struct iovec piece = {bytes, length};
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t received;
    do received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (received < 0 && errno == EINTR);
    *count = 0;
    if (received < 0) return -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
        *count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(descriptors, CMSG_DATA(header), sizeof(int) * *count);
    }
    if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
        while (*count > 0) close(descriptors[--*count]);
        errno = EMSGSIZE;
        return -1;
    }
    return received;
}

// One call for at most CLINUX_DATAGRAMS_MAX of them, in the kernel's form.
struct batch {
    struct mmsghdr messages[CLINUX_DATAGRAMS_MAX];
    struct iovec parts[CLINUX_DATAGRAMS_MAX];
    unsigned count;
};

static void describe(struct batch *batch, struct clinux_datagram *datagrams, unsigned count) {
    batch->count = count > CLINUX_DATAGRAMS_MAX ? CLINUX_DATAGRAMS_MAX : count;
    for (unsigned i = 0; i < batch->count; i++) {
        batch->parts[i] = (struct iovec){.iov_base = datagrams[i].bytes, .iov_len = datagrams[i].length};
        batch->messages[i].msg_hdr = (struct msghdr){
            .msg_name = &datagrams[i].address,
            .msg_namelen = datagrams[i].address_length,
            .msg_iov = &batch->parts[i],
            .msg_iovlen = 1,
        };
    }
}

int clinux_receive_datagrams(int descriptor, struct clinux_datagram *datagrams, unsigned count) {
    struct batch batch;
    describe(&batch, datagrams, count);
    for (unsigned i = 0; i < batch.count; i++) batch.messages[i].msg_hdr.msg_namelen = sizeof datagrams[i].address;
    int taken = recvmmsg(descriptor, batch.messages, batch.count, MSG_DONTWAIT, NULL);
    for (int i = 0; i < taken; i++) {
        datagrams[i].length = batch.messages[i].msg_len;
        datagrams[i].address_length = batch.messages[i].msg_hdr.msg_namelen;
    }
    return taken;
}

int clinux_send_datagrams(int descriptor, struct clinux_datagram *datagrams, unsigned count) {
    if (count == 1) {
        // The kernel has less to read than with a vector of vectors, and one is what it mostly is.
        ssize_t sent = sendto(descriptor, datagrams->bytes, datagrams->length, MSG_DONTWAIT,
                              (const struct sockaddr *)&datagrams->address, datagrams->address_length);
        return sent < 0 ? -1 : 1;
    }
    struct batch batch;
    describe(&batch, datagrams, count);
    return sendmmsg(descriptor, batch.messages, batch.count, MSG_DONTWAIT);
}

int clinux_block_icmp(int descriptor) {
    int family = 0;
    socklen_t length = sizeof family;
    if (getsockopt(descriptor, SOL_SOCKET, SO_DOMAIN, &family, &length) != 0) return -1;
    if (family == AF_INET) {
        struct icmp_filter filter = {.data = ~(__u32)0};
        return setsockopt(descriptor, SOL_RAW, ICMP_FILTER, &filter, sizeof filter);
    }
    struct icmp6_filter filter;
    memset(&filter, 0xff, sizeof filter);
    return setsockopt(descriptor, IPPROTO_ICMPV6, ICMPV6_FILTER, &filter, sizeof filter);
}

// The least that bind(2) asks for: memory for one frame, and rings of one entry each. The kernel keeps the page (it counts
// towards RLIMIT_MEMLOCK without CAP_IPC_LOCK); nothing of it is mapped afterwards.
static int prepare_queue_socket(int descriptor) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *memory = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return -1;
    struct xdp_umem_reg frames;
    memset(&frames, 0, sizeof frames);
    frames.addr = (uint64_t)(uintptr_t)memory;
    frames.len = page;
    frames.chunk_size = (uint32_t)(page > 4096 ? 4096 : page);
    int result = setsockopt(descriptor, SOL_XDP, XDP_UMEM_REG, &frames, sizeof frames);
    const int rings[] = {XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_TX_RING};
    const int entries = 1;
    for (size_t index = 0; result == 0 && index < sizeof rings / sizeof rings[0]; index++)
        result = setsockopt(descriptor, SOL_XDP, rings[index], &entries, sizeof entries);
    const int failure = errno;
    munmap(memory, page);
    errno = failure;
    return result;
}

int clinux_occupy_queue(unsigned device, unsigned queue) {
    const int descriptor = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (descriptor < 0) return -1;
    struct sockaddr_xdp address;
    memset(&address, 0, sizeof address);
    address.sxdp_family = AF_XDP;
    // With copying every driver does, and none is changed.
    address.sxdp_flags = XDP_COPY;
    address.sxdp_ifindex = device;
    address.sxdp_queue_id = queue;
    if (prepare_queue_socket(descriptor) == 0 && bind(descriptor, (struct sockaddr *)&address, sizeof address) == 0)
        return descriptor;
    const int failure = errno;
    close(descriptor);
    errno = failure;
    return -1;
}

// What is writable in a file, or was until it was relocated, has its pages in memory only: those must stay.
static int release_pages(struct dl_phdr_info *object, size_t size, void *context) {
    (void)size;
    (void)context;
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (size_t index = 0; index < object->dlpi_phnum; index++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[index];
        if (segment->p_type != PT_LOAD || segment->p_flags & PF_W) continue;
        const uintptr_t begin = (object->dlpi_addr + segment->p_vaddr) & ~(page - 1);
        const uintptr_t end = object->dlpi_addr + segment->p_vaddr + segment->p_filesz;
        // Of no object that has no file, such as the vDSO: that fails, and nothing is lost.
        madvise((void *)begin, end - begin, MADV_DONTNEED);
    }
    return 0;
}

void clinux_release_memory(void) {
    malloc_trim(0);
    dl_iterate_phdr(release_pages, NULL);
}
