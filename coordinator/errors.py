"""The error tree of the coordinator.

    CoordinatorError
    ├── ConfigInvalid        a setting is missing, unknown or out of range
    ├── CampaignInvalid      a campaign file breaks a rule
    ├── WireInvalid          a message from a site breaks the contract
    ├── LedgerCorrupt        stored entries contradict the ledger's rules
    ├── CsrInvalid           a signing request must not be answered
    ├── IdentityMissing      key files are absent or unreadable
    └── StoreError
        ├── StoreConflict    a row with that key exists, or another writer was faster
        └── StoreUnavailable the database cannot be opened, read or written

What a site may meet in the normal course of things is no error but a `core.refusals.Refusal`.
"""

from __future__ import annotations


class CoordinatorError(Exception):
    """Base of all errors of this package.

    Attributes:
        retry: Whether the same call may succeed later without a change by a person.
    """

    retry = False


class ConfigInvalid(CoordinatorError):
    """A setting is missing, unknown or out of range; the message names it and the remedy."""


class CampaignInvalid(CoordinatorError):
    """A campaign breaks a rule; the message names the key and the rule."""


class WireInvalid(CoordinatorError):
    """A message breaks the contract.

    Attributes:
        field: Path of the field, for example `candidate_batch.margins`.
    """

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(f"{field}: {sentence}")
        self.field = field


class LedgerCorrupt(CoordinatorError):
    """Stored entries contradict the ledger's rules; nothing may be granted until this is solved.

    Attributes:
        sequence: Position of the first entry that does not fit.
    """

    def __init__(self, sequence: int, sentence: str) -> None:
        super().__init__(f"ledger entry {sequence}: {sentence}")
        self.sequence = sequence


class CsrInvalid(CoordinatorError):
    """A signing request or a node key must not be answered; the message says why."""


class IdentityMissing(CoordinatorError):
    """A key or certificate file is absent or unreadable; `perimeter-coordinator init` makes it."""


class StoreError(CoordinatorError):
    """Base of database errors."""


class StoreConflict(StoreError):
    """A row with that key exists, or another writer was faster."""


class StoreUnavailable(StoreError):
    """The database cannot be opened, read or written."""

    retry = True
