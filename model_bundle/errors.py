"""Errors of the bundle.

BundleError
├── MalformedBundle     the bytes are not a bundle, or a part does not match its manifest
├── SignatureInvalid    no trusted key signed the manifest
├── BundleExpired       the manifest's time is over
├── SchemaInvalid       a label schema breaks its rules
└── FeatureInvalid      a sample cannot become model input
"""

from __future__ import annotations


class BundleError(Exception):
    """Base of all errors of this package."""


class MalformedBundle(BundleError):
    """The bytes are not a bundle, or a part differs from what the manifest says."""


class SignatureInvalid(BundleError):
    """No trusted key signed the manifest."""


class BundleExpired(BundleError):
    """The manifest ended before the given time."""


class SchemaInvalid(BundleError):
    """A label schema breaks its rules."""


class FeatureInvalid(BundleError):
    """A sample cannot become model input."""
