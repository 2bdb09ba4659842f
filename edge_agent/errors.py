"""Errors of the agent.

AgentError
├── ConfigError             the configuration cannot be used; names the key and the remedy
├── IdentityError           no usable certificate: enrol, or enrol again
├── StorageError            the state folder cannot be used
│   ├── StorageFull         no space; what was being written is not there, later writes may work
│   └── SealBroken          a sealed value was changed, or belongs to another key
├── EgressRefused           a message would carry what must not leave; it was not sent
├── PeerError               the coordinator or the portal did not take a call
│   ├── PeerUnavailable     try again later
│   └── PeerRefused         the same call will be refused again; carries the stable reason
├── SampleRefused           a sample cannot be used; carries a stable reason, never content
└── InstallRefused          a model version cannot be run here; carries the wire's reason
"""

from __future__ import annotations


class AgentError(Exception):
    """Base of all errors of this package. `retryable` says whether waiting may help."""

    retryable = False


class ConfigError(AgentError):
    """The configuration cannot be used."""


class IdentityError(AgentError):
    """There is no usable certificate."""


class StorageError(AgentError):
    """The state folder cannot be used."""


class StorageFull(StorageError):
    """No space is left. Nothing of the failed write is there."""

    retryable = True


class SealBroken(StorageError):
    """A sealed value was changed or was sealed by another key."""


class EgressRefused(AgentError):
    """A message would carry something that must not leave the device."""


class PeerError(AgentError):
    """A remote call failed.

    Attributes:
        reason: Stable upper-snake reason of the peer, or the gRPC status name.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class PeerUnavailable(PeerError):
    """The peer cannot be reached or is overloaded; the call may be repeated."""

    retryable = True


class PeerRefused(PeerError):
    """The peer understood the call and refused it."""


class SampleRefused(AgentError):
    """A sample cannot be used.

    Attributes:
        reason: Stable word such as `not-utf8`.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class InstallRefused(AgentError):
    """A model version cannot be run on this device.

    Attributes:
        reason: Value of the wire's `InstallReason`.
    """

    def __init__(self, message: str, *, reason: int) -> None:
        super().__init__(message)
        self.reason = reason
