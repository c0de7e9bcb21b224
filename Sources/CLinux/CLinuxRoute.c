#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>

#include "CLinux.h"

int clinux_unshare_network(void) { return unshare(CLONE_NEWNET); }

int clinux_join_network(int descriptor) { return setns(descriptor, CLONE_NEWNET); }

int clinux_unshare_user(void) { return unshare(CLONE_NEWUSER); }

int clinux_bpf_count(uint32_t target, enum clinux_bpf_place place) {
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    // In a union with target_ifindex, where the headers know that.
    attributes.query.target_fd = target;
    attributes.query.attach_type = (uint32_t)place;
    if (syscall(SYS_bpf, BPF_PROG_QUERY, &attributes, sizeof attributes) != 0) {
        // There are some, and no room was given for their numbers.
        if (errno != ENOSPC) return -1;
        return attributes.query.prog_cnt > 0 ? (int)attributes.query.prog_cnt : 1;
    }
    return (int)attributes.query.prog_cnt;
}

int clinux_legacy_table(int descriptor, int family, const char *name, struct clinux_legacy_table *table) {
    // Both families' structures are the same.
    struct ipt_getinfo information;
    _Static_assert(sizeof information == sizeof(struct ip6t_getinfo), "as the kernel has it");
    memset(&information, 0, sizeof information);
    strncpy(information.name, name, sizeof information.name - 1);
    socklen_t length = sizeof information;
    const int level = family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
    const int option = family == AF_INET ? IPT_SO_GET_INFO : IP6T_SO_GET_INFO;
    if (getsockopt(descriptor, level, option, &information, &length) != 0) return -1;
    *table = (struct clinux_legacy_table){.entries = information.num_entries, .size = information.size};
    return 0;
}

int clinux_legacy_rules(int descriptor, int family, const char *name, void *bytes, unsigned size) {
    const size_t header = sizeof(struct ipt_get_entries);
    _Static_assert(sizeof(struct ipt_get_entries) == sizeof(struct ip6t_get_entries), "as the kernel has it");
    struct ipt_get_entries *entries = calloc(1, header + size);
    if (entries == NULL) return -1;
    strncpy(entries->name, name, sizeof entries->name - 1);
    entries->size = size;
    socklen_t length = (socklen_t)(header + size);
    const int level = family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
    const int option = family == AF_INET ? IPT_SO_GET_ENTRIES : IP6T_SO_GET_ENTRIES;
    const int result = getsockopt(descriptor, level, option, entries, &length);
    const int failure = errno;
    if (result == 0) memcpy(bytes, (char *)entries + header, size);
    free(entries);
    errno = failure;
    return result;
}

size_t clinux_legacy_target_offset(int family) {
    return family == AF_INET ? offsetof(struct ipt_entry, target_offset) : offsetof(struct ip6t_entry, target_offset);
}

size_t clinux_legacy_next_offset(int family) {
    return family == AF_INET ? offsetof(struct ipt_entry, next_offset) : offsetof(struct ip6t_entry, next_offset);
}
