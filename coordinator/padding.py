"""Size classes of messages from sites. Pure.

The wire hides what a message says, not how long it is: without padding its length would tell how
many rows or outcomes it holds. Zero bytes bring it to the next of a few sizes. The other side of
the wire has the same rule in a module of its own; a contract test holds them together.
"""

from __future__ import annotations

from google.protobuf.message import Message

PADDING = "padding"
CLASS_SMALLEST = 256
CLASS_STEP = 32 << 10


def size_class(size: int) -> int:
    """Returns the smallest size class of at least `size` bytes.

    Powers of two from 256 to 32 KiB, then multiples of 32 KiB.

    >>> [size_class(n) for n in (0, 256, 257, 32769, 70000)]
    [256, 256, 512, 65536, 98304]
    """
    if size <= CLASS_STEP:
        return max(CLASS_SMALLEST, 1 << max(0, size - 1).bit_length())
    return -(-size // CLASS_STEP) * CLASS_STEP


def padding_length(size: int, tag_bytes: int) -> int:
    """Returns how many zero bytes bring a message to the next class that they can reach exactly.

    Args:
        size: Bytes of the message without padding.
        tag_bytes: Bytes of the tag of the field; its length takes 1 to 5 more.

    >>> padding_length(256, 1), padding_length(250, 1), padding_length(255, 1)
    (0, 4, 254)
    """
    wanted = size_class(size)
    while wanted > size:
        for length_bytes in range(1, 6):
            zeros = wanted - size - tag_bytes - length_bytes
            if zeros > 0 and _width(zeros) == length_bytes:
                return zeros
        # One or two bytes are less than an entry takes, and some lengths fall between two widths.
        wanted = size_class(wanted + 1)
    return 0


def _width(length: int) -> int:
    """Bytes that a length takes on the wire."""
    return max(1, (length.bit_length() + 6) // 7)


def expected_padding(message: Message) -> int | None:
    """Returns how long the padding of a message has to be; None for one that has none."""
    field = message.DESCRIPTOR.fields_by_name.get(PADDING)
    if field is None:
        return None
    tag_bytes = 1 if field.number < 16 else 2
    present = len(getattr(message, PADDING))
    entry = tag_bytes + _width(present) + present if present else 0
    return padding_length(message.ByteSize() - entry, tag_bytes)


def is_padding(value: bytes, message: Message) -> bool:
    """True for no padding, as older machines send, and for exactly as many zeros as there must be.

    Nothing else, so that padding cannot carry anything.
    """
    return not value or (len(value) == expected_padding(message) and not value.strip(b"\0"))
