#define _GNU_SOURCE
#include <sched.h>

#include "CLinux.h"

int clinux_unshare_network(void) { return unshare(CLONE_NEWNET); }

int clinux_join_network(int descriptor) { return setns(descriptor, CLONE_NEWNET); }

int clinux_unshare_user(void) { return unshare(CLONE_NEWUSER); }
