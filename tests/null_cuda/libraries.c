/* cuBLAS, cuDNN (its older interface) and NCCL, as far as torch needs an answer of them. */

#include <stdlib.h>

#include "null.h"

/* ---- cuBLAS ----------------------------------------------------------------------------------- */

#define CREATES(name)        \
    int name(void **out) {   \
        *out = new_handle(); \
        return SUCCESS;      \
    }
#define WORKS(name, which) \
    int name(void) {       \
        work(which);       \
        return SUCCESS;    \
    }

CREATES(cublasCreate_v2)
CREATES(cublasLtMatmulDescCreate)
CREATES(cublasLtMatrixLayoutCreate)
CREATES(cublasLtMatmulPreferenceCreate)
int cublasGetMathMode(void *handle, int *mode) {
    *mode = 0;
    return SUCCESS;
}
int cublasGetPointerMode_v2(void *handle, int *mode) {
    *mode = 0;
    return SUCCESS;
}
WORKS(cublasSgemm_v2, N_cublas)
WORKS(cublasSgemmStridedBatched, N_cublas)
WORKS(cublasGemmEx, N_cublas)
WORKS(cublasGemmStridedBatchedEx, N_cublas)
WORKS(cublasSgemv_v2, N_cublas)
WORKS(cublasLtMatmul, N_cublas)

/* ---- cuDNN ------------------------------------------------------------------------------------ */

CREATES(cudnnCreate)
CREATES(cudnnCreateTensorDescriptor)
CREATES(cudnnCreateFilterDescriptor)
CREATES(cudnnCreateActivationDescriptor)
int cudnnGetStream(void *handle, void **stream) {
    *stream = NULL;
    return SUCCESS;
}
const char *cudnnGetErrorString(int error) {
    return "error of the null GPU";
}

WORKS(cudnnConvolutionForward, N_cudnn)
WORKS(cudnnConvolutionBackwardData, N_cudnn)
WORKS(cudnnConvolutionBackwardFilter, N_cudnn)
WORKS(cudnnBatchNormalizationForwardTrainingEx, N_cudnn)
WORKS(cudnnBatchNormalizationBackwardEx, N_cudnn)
WORKS(cudnnBatchNormalizationForwardInference, N_cudnn)

/* A convolution's descriptor is how it may compute: 3, CUDNN_FMA_MATH, is without TF32. */
int cudnnCreateConvolutionDescriptor(int **math) {
    *math = calloc(1, sizeof(int));
    return SUCCESS;
}
int cudnnDestroyConvolutionDescriptor(int *math) {
    free(math);
    return SUCCESS;
}
int cudnnSetConvolutionMathType(int *math, int type) {
    *math = type;
    return SUCCESS;
}

/* One algorithm, of number 1, which gives the same bits each time and computes as it may. */
struct algorithm {
    int number, status;
    float ms;
    size_t memory;
    int deterministic, math, reserved[3];
};
static int found(int math, int *returned, struct algorithm *result) {
    *result = (struct algorithm){.number = 1, .deterministic = 1, .math = math};
    *returned = 1;
    return SUCCESS;
}

/* A search tries all algorithms: what torch.backends.cudnn.benchmark does for each new shape. */
#define SEARCHES(name)                                                                        \
    int name(void *handle, void *a, const void *pa, void *b, const void *pb, int *c, void *d, \
             void *pd, int asked, int *returned, struct algorithm *result) {                  \
        count(N_searches, 1);                                                                 \
        return found(*c, returned, result);                                                   \
    }
SEARCHES(cudnnFindConvolutionForwardAlgorithmEx)
SEARCHES(cudnnFindConvolutionBackwardDataAlgorithmEx)
SEARCHES(cudnnFindConvolutionBackwardFilterAlgorithmEx)

#define GUESSES(name)                                                                   \
    int name(void *handle, void *a, void *b, int *c, void *d, int asked, int *returned, \
             struct algorithm *result) {                                                \
        return found(*c, returned, result);                                             \
    }
GUESSES(cudnnGetConvolutionForwardAlgorithm_v7)
GUESSES(cudnnGetConvolutionBackwardDataAlgorithm_v7)
GUESSES(cudnnGetConvolutionBackwardFilterAlgorithm_v7)

/* No working memory is needed. The size is the last of so many arguments. */
#define NEEDS_NONE_7(name)                                                       \
    int name(void *a, void *b, void *c, void *d, void *e, int f, size_t *size) { \
        *size = 0;                                                               \
        return SUCCESS;                                                          \
    }
NEEDS_NONE_7(cudnnGetConvolutionForwardWorkspaceSize)
NEEDS_NONE_7(cudnnGetConvolutionBackwardDataWorkspaceSize)
NEEDS_NONE_7(cudnnGetConvolutionBackwardFilterWorkspaceSize)

int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(void *handle, int mode, int operations,
                                                         void *activation, void *x, size_t *size) {
    *size = 0;
    return SUCCESS;
}
int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(void *handle, int mode, int operations,
                                                             void *x, void *z, void *y,
                                                             void *parameters, void *activation,
                                                             size_t *size) {
    *size = 0;
    return SUCCESS;
}
int cudnnGetBatchNormalizationBackwardExWorkspaceSize(void *handle, int mode, int operations,
                                                      void *x, void *y, void *dy, void *dz,
                                                      void *dx, void *parameters, void *activation,
                                                      size_t *size) {
    *size = 0;
    return SUCCESS;
}

/* ---- NCCL: everyone hears what it said itself -------------------------------------------------- */

typedef struct {
    char bytes[128];
} unique_id;
typedef intptr_t size_of_team; /* stands for a communicator */

int ncclGetUniqueId(unique_id *id) {
    memset(id, 0, sizeof *id);
    return SUCCESS;
}
int ncclCommInitRank(size_of_team *out, int size, unique_id id, int rank) {
    *out = size;
    return SUCCESS;
}
int ncclCommInitRankConfig(size_of_team *out, int size, unique_id id, int rank,
                           void *configuration) {
    *out = size;
    return SUCCESS;
}
int ncclCommInitRankScalable(size_of_team *out, int size, int rank) {
    *out = size;
    return SUCCESS;
}
int ncclCommSplit(size_of_team of, int color, int key, size_of_team *out) {
    *out = of;
    return SUCCESS;
}
int ncclCommCount(size_of_team of, int *size) {
    *size = of;
    return SUCCESS;
}
int ncclCommGetAsyncError(size_of_team of, int *error) {
    *error = SUCCESS;
    return SUCCESS;
}
const char *ncclGetErrorString(int error) {
    return "error of the null GPU";
}
const char *ncclGetLastError(size_of_team of) {
    return "";
}

static const size_t bytes_of[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1}; /* by ncclDataType_t */
static int say(void *to, const void *from, size_t bytes) {
    if (to != from) memmove(to, from, bytes);
    return SUCCESS;
}
int ncclAllReduce(const void *from, void *to, size_t count, int type) {
    work(N_nccl);
    return say(to, from, count * bytes_of[type]);
}
int ncclBroadcast(const void *from, void *to, size_t count, int type) {
    work(N_nccl);
    return say(to, from, count * bytes_of[type]);
}
int ncclAllGather(const void *from, char *to, size_t count, int type, size_of_team team) {
    size_t bytes = count * bytes_of[type];
    work(N_nccl);
    for (int rank = 0; rank < team; rank++) say(to + rank * bytes, from, bytes);
    return SUCCESS;
}
WORKS(ncclBcast, N_nccl)
