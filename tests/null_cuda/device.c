/* Devices and their properties: those of a GPU that has all that torch asks for. */

#include <stdio.h>
#include <driver_types.h> /* for struct cudaDeviceProp, whose layout changes with the version */

#include "null.h"

static __thread int current;

int devices(void) {
    return (int)setting("NULL_CUDA_DEVICES", 1);
}
int current_device(void) {
    return current;
}
size_t device_memory(void) {
    return (size_t)setting("NULL_CUDA_MEMORY", 80e9);
}

int cudaGetDeviceCount(int *number) {
    *number = devices();
    return SUCCESS;
}
int cudaGetDevice(int *device) {
    *device = current;
    return SUCCESS;
}

int cudaSetDevice(int device) {
    if (device < 0 || device >= devices()) return INVALID_DEVICE;
    current = device;
    return SUCCESS;
}

static const struct {
    enum cudaDeviceAttr name;
    int value;
} attributes[] = {
    {cudaDevAttrMultiProcessorCount, 132},
    {cudaDevAttrMaxThreadsPerBlock, 1024},
    {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
    {cudaDevAttrMaxSharedMemoryPerBlock, 48 << 10},
    {cudaDevAttrMaxSharedMemoryPerBlockOptin, 227 << 10},
    {cudaDevAttrComputeCapabilityMajor, 9},
    {cudaDevAttrWarpSize, 32},
    {cudaDevAttrMaxGridDimX, 2147483647},
};

int cudaDeviceGetAttribute(int *value, int name, int device) {
    *value = 0;
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
        if ((int)attributes[i].name == name) *value = attributes[i].value;
    return SUCCESS;
}

int cudaGetDeviceProperties(struct cudaDeviceProp *of, int device) {
    *of = (struct cudaDeviceProp){
        .name = "null GPU",
        .totalGlobalMem = device_memory(),
        .sharedMemPerBlock = 48 << 10,
        .sharedMemPerBlockOptin = 227 << 10,
        .sharedMemPerMultiprocessor = 228 << 10,
        .regsPerBlock = 65536,
        .regsPerMultiprocessor = 65536,
        .warpSize = 32,
        .maxThreadsPerBlock = 1024,
        .maxThreadsDim = {1024, 1024, 64},
        .maxGridSize = {2147483647, 65535, 65535},
        .maxThreadsPerMultiProcessor = 2048,
        .multiProcessorCount = 132,
        .l2CacheSize = 50 << 20,
        .memPitch = 2147483647,
        .textureAlignment = 512,
        .unifiedAddressing = 1,
        .concurrentKernels = 1,
        .asyncEngineCount = 3,
        .pciBusID = device + 1,
        .major = 9, /* compute capability: has bf16 and TF32 */
    };
    return SUCCESS;
}
int cudaGetDeviceProperties_v2(struct cudaDeviceProp *of, int device) {
    return cudaGetDeviceProperties(of, device);
}

int cudaDeviceGetPCIBusId(char *id, int length, int device) {
    snprintf(id, length, "0000:%02d:00.0", device + 1);
    return SUCCESS;
}

int cudaDeviceCanAccessPeer(int *can, int device, int peer) {
    *can = 1;
    return SUCCESS;
}
int cudaDriverGetVersion(int *version) {
    *version = VERSION;
    return SUCCESS;
}
int cudaRuntimeGetVersion(int *version) {
    *version = VERSION;
    return SUCCESS;
}
int cudaDeviceSynchronize(void) {
    count(N_device_syncs, 1);
    return SUCCESS;
}

const char *cudaGetErrorName(int error) {
    return "cudaErrorOfTheNullGPU";
}
const char *cudaGetErrorString(int error) {
    if (error == OUT_OF_MEMORY) return "out of memory";
    return error == INVALID_DEVICE ? "invalid device ordinal" : "error of the null GPU";
}

static int nothing(void) {
    return SUCCESS;
}
int cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                     unsigned long long flags, int *found) {
    *function = (void *)nothing;
    if (found) *found = 0;
    return SUCCESS;
}
