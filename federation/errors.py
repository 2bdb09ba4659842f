"""Errors of federated training.

FederationError
├── RequestInvalid        request.json or a settings file cannot be used as it stands
├── DatasetInvalid        a site's labelled example cannot become training input
├── NetworkInvalid        arrays and network do not fit each other
├── ReplyRefused          a trainer would return something that may not leave the site
├── FrameInvalid          bytes on the trainer's socket are not a message
├── LayerUnknown          a message leaves out a layer that this site does not hold (retry: with it)
├── TrainerUnavailable    the site's trainer does not answer (retry: yes)
├── QuorumMissed          too few usable replies in a round (retry: yes)
├── CheckpointInvalid     a round file is damaged or belongs to another run
├── ExportFailed          the exported graph does not compute what was trained
├── ControlFailed         the SuperLink refused or did not answer (retry: where it says so)
└── EnrollmentFailed      the coordinator did not accept the join token
"""

from __future__ import annotations


class FederationError(Exception):
    """Base of all errors of this package.

    Attributes:
        retry: Whether the same call may succeed later without a change.
    """

    retry = False


class RequestInvalid(FederationError):
    """A request or a settings file holds a missing, unknown or wrong value."""


class DatasetInvalid(FederationError):
    """A labelled example cannot become training input."""


class NetworkInvalid(FederationError):
    """Arrays do not fit the network that they are meant for."""


class ReplyRefused(FederationError):
    """A reply holds something that may not leave the site, or that no honest site would send."""


class FrameInvalid(FederationError):
    """Bytes on the trainer's socket are not a message of this version."""


class LayerUnknown(FederationError):
    """A command names a fixed layer that the site does not hold; send it with the layer."""

    retry = True


class TrainerUnavailable(FederationError):
    """The site's trainer does not answer on its socket."""

    retry = True


class QuorumMissed(FederationError):
    """A round ended with fewer usable replies than its quorum."""

    retry = True


class CheckpointInvalid(FederationError):
    """A round's files are damaged, cut short or belong to another run."""


class ExportFailed(FederationError):
    """The exported graph does not compute what was trained."""


class ControlFailed(FederationError):
    """The SuperLink refused a call or did not answer."""

    def __init__(self, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.retry = retry


class EnrollmentFailed(FederationError):
    """The coordinator did not accept the join token, or its answer cannot be trusted."""
