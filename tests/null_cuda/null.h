/* What the files of the null GPU share: settings, counters, and handles.

Functions here have CUDA's names and the argument types of its ABI, not its headers, whose
prototypes differ from version to version. */

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { SUCCESS = 0, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101 }; /* of cudaError_t */
enum { VERSION = 13000, MOST_DEVICES = 16 };

/* Contents up to this size are kept when they are copied: sizes, indices, single numbers, by which
the host decides something. Larger ones are left as they are, which saves time and memory. */
enum { KEPT = 1 << 16 };

#define COUNTERS(X)                                                            \
    X(launches) X(cudnn) X(cublas) X(nccl) X(searches)                         \
    X(copies_h2d) X(copies_d2h) X(copies_d2d) X(pageable_h2d) X(pageable_d2h)  \
    X(bytes_h2d) X(bytes_d2h) X(fills)                                         \
    X(stream_syncs) X(event_syncs) X(device_syncs) X(event_waits)              \
    X(event_records)                                                           \
    X(mallocs) X(malloc_bytes) X(frees) X(host_mallocs) X(host_malloc_bytes)

#define NUMBERED(name) N_##name,
enum counter { COUNTERS(NUMBERED) COUNT };
#undef NUMBERED

void count(enum counter which, long by);
double setting(const char *name, double otherwise); /* a number of the environment */
void *new_handle(void);                             /* of what the host only hands on */
void work(enum counter which);                      /* an operation is queued: counts, takes time */

int devices(void);
int current_device(void);
size_t device_memory(void); /* of each device, in bytes */

enum place { DEVICE, PINNED, PAGEABLE };
enum place place_of(const void *address, int *device);
