"""The masking policy of a site: level, languages, detector, site lists, limits."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.masking.errors import MaskingConfigError
from edge_agent.masking.seam import Level

DEFAULT_PACK = "mixed"
PACKS_FOLDER = Path(__file__).parent / "packs"

_DETECTOR = re.compile(r"builtin|(?:spacy|transformers|gliner):.+")


@dataclass(frozen=True, slots=True)
class MaskingLimits:
    """Limits of masking, with units.

    Attributes:
        max_chars: Longest text that is masked; longer ones are held.
        time_out_seconds: Longest wait for one text; a batch may take this plus 20 ms a text.
        start_seconds: Longest wait for the child process to be ready.
        memory_mb: Address space of the child process, in MiB (1 MiB = 2**20 bytes).
        idle_seconds: The child process ends after this long without work.
        batch_texts: Most texts in one message to the child process.
    """

    max_chars: int = 100_000
    time_out_seconds: float = 10.0
    start_seconds: float = 60.0
    memory_mb: int = 2048
    idle_seconds: float = 30.0
    batch_texts: int = 64


@dataclass(frozen=True, slots=True)
class MaskingPolicy:
    """Everything that decides what is masked.

    Attributes:
        level: strict, balanced or light.
        light_signed_by: Name of the site lead who accepts level light; empty otherwise.
        languages: Primary BCP 47 tags that may be masked; texts in others are held.
        detector: `builtin`, or `spacy:DIR`, `transformers:DIR`, `gliner:DIR`. Directories are
            local, and the built-in chain always runs as well.
        detector_sha256: Digest of the directory of an additional detector, hex; required with one.
        pack: Name of a pack in the package, or a folder.
        pack_sha256: SHA-256 of the `pack.json` of the pack, hex; empty for a pack of the package,
            whose digest the package itself pins.
        entities: Types that presidio reports; empty means all that the registry finds.
        allow: Terms never masked, such as product names; structured types are masked anyway.
        deny: Terms always masked, such as project code names.
        limits: Limits.
    """

    level: Level = Level.BALANCED
    light_signed_by: str = ""
    languages: tuple[str, ...] = ("en",)
    detector: str = "builtin"
    detector_sha256: str = ""
    pack: str = DEFAULT_PACK
    pack_sha256: str = ""
    entities: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    limits: MaskingLimits = field(default_factory=MaskingLimits)

    def __post_init__(self) -> None:
        if self.level is Level.NONE:
            raise MaskingConfigError("level none is for samples without text; choose another level")
        if self.level is Level.LIGHT and not self.light_signed_by.strip():
            raise MaskingConfigError(
                "level light needs the site lead's sign-off: set light_signed_by to their name"
            )
        if not self.languages:
            raise MaskingConfigError("languages is empty; name at least one, such as en")
        if not _DETECTOR.fullmatch(self.detector):
            raise MaskingConfigError(
                f"detector {self.detector!r} is unknown; use builtin, spacy:DIR, transformers:DIR "
                "or gliner:DIR"
            )
        if self.detector != "builtin" and not re.fullmatch(r"[0-9a-f]{64}", self.detector_sha256):
            raise MaskingConfigError(
                "an additional detector needs detector_sha256, the digest that "
                "`perimeter-agent mask check` prints for its directory"
            )

        if not self._is_shipped_pack and not self.pack_sha256:
            raise MaskingConfigError(
                "a pack from a folder needs pack_sha256, the SHA-256 of its pack.json"
            )

    @property
    def _is_shipped_pack(self) -> bool:
        return re.fullmatch(r"[a-z0-9_]+", self.pack) is not None

    @property
    def pack_folder(self) -> Path:
        """Folder of the model pack."""
        return PACKS_FOLDER / self.pack if self._is_shipped_pack else Path(self.pack)


def policy_to_json(policy: MaskingPolicy) -> dict[str, Any]:
    """A policy as plain JSON values, for the child process."""
    limits = policy.limits
    return {
        "level": policy.level.value,
        "light_signed_by": policy.light_signed_by,
        "languages": list(policy.languages),
        "detector": policy.detector,
        "detector_sha256": policy.detector_sha256,
        "pack": policy.pack,
        "pack_sha256": policy.pack_sha256,
        "entities": list(policy.entities),
        "allow": list(policy.allow),
        "deny": list(policy.deny),
        "limits": {name: getattr(limits, name) for name in MaskingLimits.__dataclass_fields__},
    }


def policy_from_json(values: dict[str, Any]) -> MaskingPolicy:
    """Read what `policy_to_json` wrote, or the `[masking]` table of a configuration file.

    Raises:
        MaskingConfigError: An unknown key or a value out of range.

    >>> policy_from_json(policy_to_json(MaskingPolicy())) == MaskingPolicy()
    True
    """
    known = set(MaskingPolicy.__dataclass_fields__)
    if unknown := sorted(set(values) - known):
        raise MaskingConfigError(f"unknown masking keys: {', '.join(unknown)}")
    ready: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        if "level" in ready:
            ready["level"] = Level(ready["level"])
        if "limits" in ready:
            ready["limits"] = MaskingLimits(**ready["limits"])
        return MaskingPolicy(**ready)
    except (TypeError, ValueError) as error:
        raise MaskingConfigError(f"masking policy: {error}") from error
