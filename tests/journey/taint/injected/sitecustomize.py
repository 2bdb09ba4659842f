"""Runs first in every process of a taint test: debug logging on, and planted leaks when asked."""

import os

if os.environ.get("PERIMETER_TAINT_DEBUG"):
    import logging

    _real = logging.basicConfig

    def _at_debug(**settings: object) -> None:
        _real(**{**settings, "level": logging.DEBUG})  # type: ignore[arg-type]

    logging.basicConfig = _at_debug
