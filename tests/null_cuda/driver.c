/* libcuda.so.1 and libnvidia-ml.so.1, which torch opens by name when it needs them. */

#include <stdlib.h>

static int devices(void) {
    const char *number = getenv("NULL_CUDA_DEVICES");
    return number ? atoi(number) : 1;
}

int cuInit(unsigned flags) {
    return 0;
}
int cuDriverGetVersion(int *version) {
    *version = 13000;
    return 0;
}
int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return 0;
}
int cuDeviceGetCount(int *number) {
    *number = devices();
    return 0;
}
int cuGetErrorString(int error, const char **text) {
    *text = "error of the null GPU";
    return 0;
}
int cuCtxGetCurrent(void **context) {
    *context = (void *)16;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = (void *)16;
    return 0;
}
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    *flags = 0;
    *active = 1;
    return 0;
}

#define NOTHING(name) \
    int name(void) {  \
        return 0;     \
    }
NOTHING(cuCtxSetCurrent)
NOTHING(cuDevicePrimaryCtxRelease_v2)
NOTHING(cuFuncGetAttribute)
NOTHING(cuFuncSetAttribute)
NOTHING(cuFuncSetCacheConfig)
NOTHING(cuLaunchCooperativeKernel)
NOTHING(cuLaunchKernel)
NOTHING(cuLinkAddData_v2)
NOTHING(cuLinkComplete)
NOTHING(cuLinkCreate_v2)
NOTHING(cuModuleGetFunction)
NOTHING(cuModuleGetGlobal_v2)
NOTHING(cuModuleLoadData)
NOTHING(cuModuleLoadDataEx)
NOTHING(cuOccupancyMaxActiveBlocksPerMultiprocessor)
NOTHING(cuPointerGetAttribute)
NOTHING(cuTensorMapEncodeTiled)

/* ---- NVML: by it torch counts devices, and tells who else has memory ---------------------------- */

NOTHING(nvmlInit)
NOTHING(nvmlInit_v2)
NOTHING(nvmlShutdown)
NOTHING(nvmlDeviceGetHandleByPciBusId_v2)
NOTHING(nvmlDeviceGetNvLinkRemoteDeviceType)
NOTHING(nvmlDeviceGetNvLinkRemotePciInfo_v2)

int nvmlDeviceGetCount_v2(int *number) {
    *number = devices();
    return 0;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = 13000;
    return 0;
}

int nvmlDeviceGetComputeRunningProcesses(void *device, unsigned *number, void *processes) {
    *number = 0;
    return 0;
}
