/* Memory of a device, pinned memory, and copies. All of it is the host's, and begins as zeros. */

#define _GNU_SOURCE
#include <pthread.h>
#include <sys/mman.h>

#include "null.h"

/* ---- Blocks: what has been handed out, by address ------------------------------------------- */

enum { MOST = 1 << 16 };
static struct block {
    char *start;
    size_t bytes;
    enum place place;
    int device;
} blocks[MOST];
static int number;
static size_t used[MOST_DEVICES]; /* bytes of each device */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The last block that starts at or before the address; -1 where there is none. */
static int before(const void *address) {
    int low = 0, high = number;
    while (low < high) {
        int middle = (low + high) / 2;
        if (blocks[middle].start <= (const char *)address)
            low = middle + 1;
        else
            high = middle;
    }
    return low - 1;
}

static int take(void **out, size_t bytes, enum place place) {
    int device = current_device(), error = OUT_OF_MEMORY;
    pthread_mutex_lock(&lock);
    if (number < MOST && (place != DEVICE || used[device] + bytes <= device_memory())) {
        /* A page costs nothing until something is written to it. */
        char *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (start != MAP_FAILED) {
            int at = before(start) + 1;
            memmove(blocks + at + 1, blocks + at, (number++ - at) * sizeof *blocks);
            blocks[at] = (struct block){start, bytes, place, device};
            if (place == DEVICE) used[device] += bytes;
            *out = start;
            error = SUCCESS;
        }
    }
    pthread_mutex_unlock(&lock);
    return error;
}

static int give_back(void *start) {
    pthread_mutex_lock(&lock);
    int at = before(start);
    if (at >= 0 && blocks[at].start == start) {
        munmap(start, blocks[at].bytes);
        if (blocks[at].place == DEVICE) used[blocks[at].device] -= blocks[at].bytes;
        memmove(blocks + at, blocks + at + 1, (--number - at) * sizeof *blocks);
    }
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

enum place place_of(const void *address, int *device) {
    pthread_mutex_lock(&lock);
    int at = before(address);
    int inside = at >= 0 && (const char *)address < blocks[at].start + blocks[at].bytes;
    enum place place = inside ? blocks[at].place : PAGEABLE;
    if (device) *device = inside ? blocks[at].device : 0;
    pthread_mutex_unlock(&lock);
    return place;
}

int cudaMalloc(void **out, size_t bytes) {
    count(N_mallocs, 1);
    count(N_malloc_bytes, bytes);
    return take(out, bytes, DEVICE);
}

int cudaFree(void *start) {
    count(N_frees, 1);
    return give_back(start);
}

int cudaHostAlloc(void **out, size_t bytes, unsigned flags) {
    count(N_host_mallocs, 1);
    count(N_host_malloc_bytes, bytes);
    return take(out, bytes, PINNED);
}

int cudaFreeHost(void *start) {
    return give_back(start);
}

int cudaMemGetInfo(size_t *left, size_t *total) {
    *total = device_memory();
    *left = *total - used[current_device()];
    return SUCCESS;
}

struct attributes {
    int type, device;
    void *on_device, *on_host;
};
int cudaPointerGetAttributes(struct attributes *of, const void *address) {
    enum { UNREGISTERED, HOST, ON_DEVICE };
    static const int types[] = {[DEVICE] = ON_DEVICE, [PINNED] = HOST, [PAGEABLE] = UNREGISTERED};
    of->type = types[place_of(address, &of->device)];
    of->on_device = of->on_host = (void *)address;
    return SUCCESS;
}

int cudaGetSymbolAddress(void **out, const void *symbol) {
    return take(out, 4096, DEVICE);
}

/* ---- Copies ---------------------------------------------------------------------------------- */

/* What comes from pinned memory is a batch: its pixels are not kept, since they could be read as
numbers that are not finite by what gets the memory next, as no kernel writes to it. */
static int copy(void *to, const void *from, size_t bytes) {
    enum place target = place_of(to, NULL), source = place_of(from, NULL);
    int keep = bytes <= KEPT;
    if (target == DEVICE && source == DEVICE) {
        work(N_copies_d2d);
    } else if (target == DEVICE) {
        work(N_copies_h2d);
        count(N_bytes_h2d, bytes);
        if (source == PAGEABLE) count(N_pageable_h2d, 1);
        keep = keep && source == PAGEABLE;
    } else if (source == DEVICE) {
        work(N_copies_d2h);
        count(N_bytes_d2h, bytes);
        if (target == PAGEABLE) count(N_pageable_d2h, 1);
        keep = 1; /* else the host would read what was there before */
    } else {
        keep = 1;
    }
    if (keep) memmove(to, from, bytes);
    /* A bool: what the host asks of numbers is whether all of them are finite, or equal. */
    if (source == DEVICE && target != DEVICE && bytes == 1) *(char *)to = 1;
    /* A count, such as that of nonzero(): whatever the memory held would be taken for one. */
    if (source == DEVICE && target != DEVICE && (bytes == 4 || bytes == 8)) {
        int64_t found = (int64_t)setting("NULL_CUDA_FOUND", -1);
        if (found >= 0) memcpy(to, &found, bytes);
    }
    return SUCCESS;
}

int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) {
    return copy(to, from, bytes);
}
int cudaMemcpyPeerAsync(void *to, int device, const void *from, int other, size_t bytes,
                        void *stream) {
    return copy(to, from, bytes);
}
int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) {
    count(N_stream_syncs, 1);
    return copy(to, from, bytes);
}

static int fill(void *to, int value, size_t bytes) {
    work(N_fills);
    if (bytes <= KEPT) memset(to, value, bytes);
    return SUCCESS;
}
int cudaMemset(void *to, int value, size_t bytes) {
    return fill(to, value, bytes);
}
int cudaMemsetAsync(void *to, int value, size_t bytes, void *stream) {
    return fill(to, value, bytes);
}
