"""Gives memory that is free inside the process back to the device.

Scoring a pool and loading a model need memory for a moment; glibc keeps it unless it is asked. On a
device with one gigabyte that is worth a call when a busy time ends.
"""

from __future__ import annotations

import ctypes


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
