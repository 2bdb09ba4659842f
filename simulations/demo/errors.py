"""Errors of the demo.

DemoError
├── TableInvalid     the user's own table cannot be read as samples
├── CommandFailed    a set-up command of a role ended with an error
├── ProcessEnded     a process that must run ended by itself
├── DemoTimeout      something did not happen in time
├── PortalRefused    the portal answered the simulated expert with an error
└── WorkFolderTaken  the work folder holds something that no demo made
"""

from __future__ import annotations


class DemoError(Exception):
    """Base of all errors of the demo."""


class TableInvalid(DemoError):
    """The user's own table cannot be read as samples."""


class CommandFailed(DemoError):
    """A set-up command of a role ended with an error."""


class ProcessEnded(DemoError):
    """A process that must run ended by itself."""


class DemoTimeout(DemoError):
    """Something did not happen in time."""


class PortalRefused(DemoError):
    """The portal answered the simulated expert with an error."""


class WorkFolderTaken(DemoError):
    """The work folder holds something that no demo made."""
