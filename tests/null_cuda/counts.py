"""What has been done on the null GPU, counted: for code that runs on it.

launches, cudnn, cublas, nccl: operations queued, by the library they are of.
copies_h2d, copies_d2h, copies_d2d: copies (h: host, d: device); of these pageable_h2d and
pageable_d2h from or to memory that is not pinned; bytes_h2d, bytes_d2h. fills: cudaMemset.
stream_syncs, event_syncs, device_syncs: the host waits for the device.
event_waits: a stream waits for another; the host does not. event_records.
searches: for the best algorithm of a convolution (torch.backends.cudnn.benchmark).
mallocs, malloc_bytes, frees: of device memory. host_mallocs, host_malloc_bytes: of pinned memory.
"""

import ctypes
import itertools
import os

_library = ctypes.CDLL(os.path.join(os.environ["NULL_CUDA"], "libnull.so"))
_library.null_kernel_name.restype = ctypes.c_char_p
_library.null_kernel_launches.restype = ctypes.c_long


_names = (ctypes.c_char_p * 64).in_dll(_library, "null_names")  # ends with NULL
NAMES = [name.decode() for name in itertools.takewhile(lambda name: name is not None, _names)]
_counts = (ctypes.c_long * len(NAMES)).in_dll(_library, "null_counts")
COPIES = ("copies_h2d", "copies_d2h", "copies_d2d")
OPERATIONS = ("launches", "cudnn", "cublas", "nccl", *COPIES, "fills")
WAITS = ("stream_syncs", "event_syncs", "device_syncs")


def snap() -> dict[str, int]:
    """All counters as they are now."""
    return dict(zip(NAMES, _counts, strict=True))


def diff(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What was counted between two snaps; names with 0 are there, too."""
    return {name: after[name] - before[name] for name in after}


def operations(counted: dict[str, int]) -> int:
    """How many the device has been given, of all kinds."""
    return sum(counted[name] for name in OPERATIONS)


def waits(counted: dict[str, int]) -> int:
    """How often the host has waited for the device."""
    return sum(counted[name] for name in WAITS)


def kernels() -> list[tuple[int, str]]:
    """(launches, name as the compiler has mangled it) of each kernel that was launched since the
    start or reset(), most launches first."""
    name, launches = _library.null_kernel_name, _library.null_kernel_launches
    found = [(launches(i), name(i).decode()) for i in range(_library.null_kernels())]
    return sorted((row for row in found if row[0]), reverse=True)


def reset() -> None:
    """All counters and those of kernels begin at 0."""
    _library.null_reset()
