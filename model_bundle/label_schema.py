"""Label schema: the ordered classes of a campaign. Its digest ties every score to one meaning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model_bundle.errors import SchemaInvalid

CLASS_COUNT_MAX = 4096
NAME_LENGTH_MAX = 120


@dataclass(frozen=True)
class LabelSchema:
    """Ordered classes; the position of a class is its index everywhere.

    Attributes:
        classes: Class names in order, 2 to 4096, unique, 1 to 120 characters each.
        version: Counts up when the meaning changes; from 1.

    Raises:
        SchemaInvalid: A rule above is broken.

    >>> LabelSchema(("cat", "dog")).index("dog")
    1
    """

    classes: tuple[str, ...]
    version: int = 1

    def __post_init__(self) -> None:
        if not 2 <= len(self.classes) <= CLASS_COUNT_MAX:
            raise SchemaInvalid(
                f"a label schema has 2 to {CLASS_COUNT_MAX} classes, not {len(self.classes)}"
            )
        if len(set(self.classes)) != len(self.classes):
            raise SchemaInvalid("a label schema names a class twice; class names must differ")
        for name in self.classes:
            if not 1 <= len(name) <= NAME_LENGTH_MAX or name != name.strip():
                raise SchemaInvalid(
                    f"class name {name!r} must have 1 to {NAME_LENGTH_MAX} characters "
                    "and no outer space"
                )
        if self.version < 1:
            raise SchemaInvalid("a label schema's version counts from 1")

    def __len__(self) -> int:
        return len(self.classes)

    def index(self, name: str) -> int:
        """Returns the index of a class name.

        Raises:
            SchemaInvalid: No class has that name.
        """
        try:
            return self.classes.index(name)
        except ValueError:
            raise SchemaInvalid(f"class {name!r} is not in the label schema") from None

    def canonical_json(self) -> bytes:
        """Returns the one JSON form: sorted keys, no spaces, UTF-8.

        >>> LabelSchema(("a", "b")).canonical_json()
        b'{"classes":["a","b"],"version":1}'
        """
        return json.dumps(
            {"classes": list(self.classes), "version": self.version},
            ensure_ascii=False,
            sort_keys=True,
            separators=(",", ":"),
        ).encode()

    def digest(self) -> bytes:
        """Returns SHA-256 of the canonical JSON, 32 bytes."""
        return hashlib.sha256(self.canonical_json()).digest()

    @classmethod
    def from_json(cls, raw: bytes) -> LabelSchema:
        """Reads the canonical JSON.

        Raises:
            SchemaInvalid: The bytes are no label schema.
        """
        try:
            fields = json.loads(raw)
        except ValueError as error:
            raise SchemaInvalid(f"label schema is not JSON: {error}") from None
        return cls.from_mapping(fields)

    @classmethod
    def from_mapping(cls, fields: Mapping[str, object]) -> LabelSchema:
        """Builds a schema from decoded JSON or TOML with the keys `classes` and `version`.

        Raises:
            SchemaInvalid: Keys or types are wrong.
        """
        classes = fields.get("classes") if isinstance(fields, Mapping) else None
        version = fields.get("version", 1) if isinstance(fields, Mapping) else None
        known = isinstance(fields, Mapping) and set(fields) <= {"classes", "version"}
        if not known or not isinstance(classes, Sequence) or isinstance(classes, str):
            raise SchemaInvalid("a label schema holds `classes`, a list of names, and `version`")
        if not all(isinstance(name, str) for name in classes) or not isinstance(version, int):
            raise SchemaInvalid("class names must be text and the version a whole number")
        return cls(tuple(classes), version)
