/* Kernels: each library registers its own when it is loaded; a launch is counted by kernel, and
does nothing. */

#define _GNU_SOURCE
#include <stdlib.h>

#include "null.h"

typedef struct {
    unsigned x, y, z;
} dim3;

/* ---- The table, by the address of the host's function ---------------------------------------- */

static struct kernel {
    const void *function;
    const char *name;
    long launches;
} *kernels;
static int number, room, sorted;

int null_kernels(void) {
    return number;
}
const char *null_kernel_name(int at) {
    return kernels[at].name;
}
long null_kernel_launches(int at) {
    return kernels[at].launches;
}

void null_reset(void) {
    extern long null_counts[];
    memset(null_counts, 0, COUNT * sizeof *null_counts);
    for (int i = 0; i < number; i++) kernels[i].launches = 0;
}

void __cudaRegisterFunction(void **binary, const void *function, char *on_device,
                            const char *name) {
    if (number == room)
        kernels = realloc(kernels, (room = room ? 2 * room : 4096) * sizeof *kernels);
    kernels[number++] = (struct kernel){function, strdup(name), 0};
    sorted = 0;
}

static int by_function(const void *one, const void *other) {
    const char *a = ((const struct kernel *)one)->function,
               *b = ((const struct kernel *)other)->function;
    return (a > b) - (a < b);
}

static int launch(const void *function) {
    work(N_launches);
    if (!sorted) qsort(kernels, number, sizeof *kernels, by_function);
    sorted = 1;
    struct kernel *found =
        bsearch(&(struct kernel){function}, kernels, number, sizeof *kernels, by_function);
    if (found) __atomic_add_fetch(&found->launches, 1, __ATOMIC_RELAXED);
    return SUCCESS;
}

/* ---- What the compiler's code and torch's call ------------------------------------------------ */

void **__cudaRegisterFatBinary(void *binary) {
    static void *handle;
    return &handle;
}
void __cudaRegisterFatBinaryEnd(void **binary) {
}
void __cudaUnregisterFatBinary(void **binary) {
}
void __cudaRegisterVar(void **binary) {
}
char __cudaInitModule(void **binary) {
    return 1;
}

static __thread struct {
    dim3 grid, block;
    size_t shared;
    void *stream;
} pushed;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
    pushed.grid = grid;
    pushed.block = block;
    pushed.shared = shared;
    pushed.stream = stream;
    return SUCCESS;
}
int __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void **stream) {
    *grid = pushed.grid;
    *block = pushed.block;
    *shared = pushed.shared;
    *stream = pushed.stream;
    return SUCCESS;
}

int __cudaGetKernel(const void **kernel, const void *function) {
    *kernel = function;
    return SUCCESS;
}
int __cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                       void *stream) {
    return launch(kernel);
}
int cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                     void *stream) {
    return launch(kernel);
}
int cudaLaunchKernelExC(const void *configuration, const void *kernel, void **arguments) {
    return launch(kernel);
}
int cudaLaunchCooperativeKernel(const void *kernel, dim3 grid, dim3 block, void **arguments,
                                size_t shared, void *stream) {
    return launch(kernel);
}

struct function_attributes {
    size_t shared, constant, local;
    int threads, registers, ptx, binary;
};
int cudaFuncGetAttributes(struct function_attributes *of, const void *kernel) {
    *of = (struct function_attributes){.threads = 1024, .registers = 32, .ptx = 90, .binary = 90};
    return SUCCESS;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *kernel,
                                                           int threads, size_t shared,
                                                           unsigned flags) {
    *blocks = 4;
    return SUCCESS;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *kernel, int threads,
                                                  size_t shared) {
    *blocks = 4;
    return SUCCESS;
}
