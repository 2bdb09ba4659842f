"""Errors of the portal.

PortalError
├── ConfigInvalid        a setting is unknown, missing or out of range
├── EnrollmentFailed     no identity could be obtained, or the one on disk is unusable
├── StoreError
│   ├── StoreMissing     the folder holds no label store
│   ├── StoreNewer       a newer version of the portal wrote the store
│   ├── KeyMissing       the campaign's key was deleted: its content is gone for good
│   ├── KeyExposed       a key file can be read by others
│   ├── KeysUnusable     the keyring is locked, missing or damaged: nothing is said of the keys
│   ├── SealBroken       sealed content was changed or belongs to another row
│   ├── AuditBroken      the audit chain does not verify
│   ├── EgressBroken     a ledger of what left does not verify
│   └── EgressUnwritable there is no room to record a message, so it is not sent
├── EgressRefused        a message would carry what must not leave; it was not sent
├── ImportInvalid        a row of an import cannot become an item
└── AccessError
    ├── PasswordWeak     a new password breaks the rules
    └── UserExists       the user name is taken

What a person or a machine may not do right now is no error but a refusal, a value with a reason.
"""

from __future__ import annotations


class PortalError(Exception):
    """Base of all errors of this package. The text names the thing and the remedy."""


class ConfigInvalid(PortalError):
    """A setting is unknown, missing or out of range."""


class EnrollmentFailed(PortalError):
    """No identity could be obtained, or the one on disk is unusable."""


class StoreError(PortalError):
    """Base of errors of the label store."""


class StoreMissing(StoreError):
    """The folder holds no label store."""


class StoreNewer(StoreError):
    """A newer version of the portal wrote the store."""


class KeyMissing(StoreError):
    """The campaign's key was deleted: its content is gone for good."""


class KeyExposed(StoreError):
    """A key file is readable by others than its owner."""


class KeysUnusable(StoreError):
    """The keyring of the operating system is locked, missing or damaged; the keys may be there."""


class SealBroken(StoreError):
    """Sealed content was changed, or it belongs to another row."""


class AuditBroken(StoreError):
    """The audit chain does not verify."""


class EgressBroken(StoreError):
    """A ledger of what left does not verify."""


class EgressUnwritable(StoreError):
    """What leaves cannot be recorded, so nothing is sent."""


class EgressRefused(PortalError):
    """A message would carry something that must not leave the site; it was not sent."""


class ImportInvalid(PortalError):
    """A row of an import cannot become an item."""


class AccessError(PortalError):
    """Base of errors around people and their access."""


class PasswordWeak(AccessError):
    """A new password breaks the rules."""


class UserExists(AccessError):
    """The user name is taken."""
