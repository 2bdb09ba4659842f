"""A masker in memory: hides e-mail addresses and answers at once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from edge_agent.masking.seam import (
    POLICY_VERSION,
    Held,
    HeldReason,
    Level,
    Masked,
    MaskedSpan,
    MaskReport,
)

ADDRESS = re.compile(r"\S+@\S+")


class AddressMasker:
    """Masks addresses; holds texts in another language than English and those that say HOLD."""

    digest = hashlib.sha256(b"addresses only").digest()

    def __init__(self) -> None:
        self.masked_count = 0
        self.hold_all: HeldReason | None = None

    def mask(self, text: str, *, language: str = "en") -> Masked | Held:
        if self.hold_all:
            return Held(self.hold_all, "told to")
        if language != "en":
            return Held(HeldReason.UNKNOWN_LANGUAGE, "English only")
        self.masked_count += 1
        spans, parts, done, length = [], [], 0, 0
        for number, match in enumerate(ADDRESS.finditer(text), 1):
            word = f"<EMAIL_ADDRESS_{number}>"
            parts += [text[done : match.start()], word]
            start = length + match.start() - done
            spans.append(
                MaskedSpan(
                    start, start + len(word), match.start(), match.end(), "EMAIL_ADDRESS", 1.0
                )
            )
            length, done = start + len(word), match.end()
        report = MaskReport(POLICY_VERSION, self.digest, Level.BALANCED, (), verified=True)
        return Masked("".join([*parts, text[done:]]), tuple(spans), report)

    def mask_many(self, texts: Sequence[str], *, language: str = "en") -> list[Masked | Held]:
        return [self.mask(text, language=language) for text in texts]

    def close(self) -> None:
        pass
