"""Errors of the masking package.

    MaskingError
    ├── MaskingConfigError    the policy cannot be run as written: refuse to start
    ├── PackError             a model file is missing, altered or unreadable
    └── DetectorError         a detector could not do its work on a text

Inside the seam every one of them becomes `Held`; only construction lets them out.
"""


class MaskingError(Exception):
    """Root of the tree."""


class MaskingConfigError(MaskingError):
    """A masking policy that names unknown things or lacks a sign-off."""


class PackError(MaskingError):
    """A model pack that is missing, altered or unreadable."""


class DetectorError(MaskingError):
    """A detector that failed on a text. Carries no content."""
