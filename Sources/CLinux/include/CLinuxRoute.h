// What network namespaces are made with and asked for: netlink messages and namespace system calls.
#ifndef CLINUX_ROUTE_H
#define CLINUX_ROUTE_H

#include <linux/if_link.h>
#include <linux/netlink.h>
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

#endif
