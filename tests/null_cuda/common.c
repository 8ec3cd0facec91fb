/* Settings, counters, and what an operation costs the host. */

#include <stdlib.h>
#include <time.h>

#include "null.h"

#define NAMED(name) #name,
const char *null_names[] = {COUNTERS(NAMED) NULL};
long null_counts[COUNT];

void count(enum counter which, long by) {
    __atomic_add_fetch(&null_counts[which], by, __ATOMIC_RELAXED);
}

/* Read when asked, not at load: a process forked from one that waits sets its own environment. */
double setting(const char *name, double otherwise) {
    const char *value = getenv(name);
    return value && *value ? atof(value) : otherwise;
}

void *new_handle(void) {
    static uintptr_t last = 0x1000;
    return (void *)__atomic_add_fetch(&last, 16, __ATOMIC_RELAXED);
}

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

void work(enum counter which) {
    static double cost_us = -1;
    count(which, 1);
    if (cost_us < 0) cost_us = setting("NULL_CUDA_LAUNCH_US", 0);
    if (cost_us > 0)
        for (double end = now_us() + cost_us; now_us() < end;) continue;
}
