#ifndef CLINUX_PROBES_H
#define CLINUX_PROBES_H

// Asks ctnetlink for the connections of the calling thread's network namespace: 0, or the error number.
int clinux_probe_conntrack(void);

// Whether an ordinary user can make a user namespace, and network, mount, pid and IPC namespaces in it; tried by a child, which
// becomes `user` first if it is root. 0, or the error number; then `step` says at what: 0 the child, 1 becoming the user,
// 2 the user namespace, 3 its uid_map, 4 the other namespaces.
int clinux_probe_user_namespace(unsigned user, int *step);

#endif
