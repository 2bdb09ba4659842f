"""Errors of import and export.

PortalError
└── InterchangeError
    ├── FormatUnknown    no format has that name
    ├── FormatUnsuited   the format cannot hold this kind of item or answer
    ├── TargetExists     the export would overwrite something
    └── FileUnreadable   a file as a whole is not what it should be

A single bad row is no error but a `RefusedRow` with its number, the reason and the remedy.
"""

from __future__ import annotations

from review_portal.errors import PortalError


class InterchangeError(PortalError):
    """Base of all errors of import and export."""


class FormatUnknown(InterchangeError):
    """No format has that name."""


class FormatUnsuited(InterchangeError):
    """The format cannot hold this kind of item or answer."""


class TargetExists(InterchangeError):
    """The export would overwrite a file or folder."""


class FileUnreadable(InterchangeError):
    """A file as a whole is not what it should be."""
