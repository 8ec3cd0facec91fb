/* What driver_types.h needs of nvcc's header of this name, which torch's wheels do not bring. */
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(a) __align__(a)
#define __device_builtin__
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define CUDARTAPI
#define __host__
#define __device__
