"""Keeps the daemon small: what a busy moment needed goes back to the device.

Measured with the two default models: the runtime's own arena never gives its working memory back
(158 MB at rest), and glibc keeps freed blocks whose size it has learned to expect. Without the
arena and with a fixed limit above which a block is mapped alone, the same work peaks at 127 MB.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_BLOCK_BYTES = 1 << 20
_ARENAS = 2


def keep_memory_small() -> bool:
    """Tells glibc to map large blocks alone, so that freeing them frees memory.

    Returns:
        False where the C library is another one.

    >>> keep_memory_small() in (True, False)
    True
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = (
        (_M_MMAP_THRESHOLD, _BLOCK_BYTES),
        (_M_TRIM_THRESHOLD, _BLOCK_BYTES),
        (_M_ARENA_MAX, _ARENAS),
    )
    return all(mallopt(name, value) for name, value in settings)


def return_free_memory() -> bool:
    """Returns free heap pages to the system; False where the C library cannot do that.

    >>> return_free_memory() in (True, False)
    True
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return False
    return bool(trim(0))
