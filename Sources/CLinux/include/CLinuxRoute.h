// What network namespaces are made with and asked for: netlink messages and namespace system calls.
#ifndef CLINUX_ROUTE_H
#define CLINUX_ROUTE_H

#include <linux/if_link.h>
#include <linux/lwtunnel.h>
#include <linux/netlink.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <linux/veth.h>

// Moves the calling thread into a new network namespace: unshare(CLONE_NEWNET), which <sched.h> hides without _GNU_SOURCE.
int clinux_unshare_network(void);

// Moves the calling thread into the network namespace behind a descriptor: setns(descriptor, CLONE_NEWNET).
int clinux_join_network(int descriptor);

// Moves the calling process, which must have one thread, into a new user namespace: unshare(CLONE_NEWUSER).
int clinux_unshare_user(void);

// Where BPF programs are attached (linux/bpf.h; the later ones are newer than Debian 12's headers).
enum clinux_bpf_place {
    CLINUX_BPF_FLOW_DISSECTOR = 17,
    CLINUX_BPF_SK_LOOKUP = 36,
    CLINUX_BPF_TCX_INGRESS = 46,
    CLINUX_BPF_TCX_EGRESS = 47,
    CLINUX_BPF_NETKIT_PRIMARY = 54,
    CLINUX_BPF_NETKIT_PEER = 55,
};

// bpf(2), BPF_PROG_QUERY: how many programs are attached there, of a device in the calling thread's network namespace, given by
// its number, or of a network namespace, given by a descriptor; -1 with EINVAL where the kernel knows no such place.
int clinux_bpf_count(uint32_t target, enum clinux_bpf_place place);

// Rules of the old tables of iptables(8) in the calling thread's network namespace, through any socket of the family.
struct clinux_legacy_table {
    unsigned entries;
    unsigned size;
};

// IPT_SO_GET_INFO and IP6T_SO_GET_INFO of the table called `name`: 0, or -1.
int clinux_legacy_table(int descriptor, int family, const char *name, struct clinux_legacy_table *table);

// IPT_SO_GET_ENTRIES and IP6T_SO_GET_ENTRIES: copies the table's `size` bytes of rules to `bytes`, which are `struct ipt_entry`
// or `struct ip6t_entry`, each with its matches and its target behind it. 0, or -1; with EAGAIN when the size is another now.
int clinux_legacy_rules(int descriptor, int family, const char *name, void *bytes, unsigned size);

// Where in such a rule stand the offsets of its target and of the next rule, 16 bits each.
size_t clinux_legacy_target_offset(int family);
size_t clinux_legacy_next_offset(int family);

#endif
