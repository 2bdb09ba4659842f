"""Searches streams, files and folders for all markers in all encodings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.journey.taint.encodings import PATTERN_BYTES_MIN, digests_of, patterns_of
from tests.journey.taint.markers import Marker
from tests.journey.taint.matcher import Hit, Matcher
from tests.journey.taint.unpacking import http2_parts, layers, sqlite_values

CHUNK = 32 * 1024 * 1024
OVERLAP = 64 * 1024


@dataclass
class SearchReport:
    """What was searched and what was found.

    Attributes:
        hits: In the order of searching, one for each marker, encoding and place.
        byte_count: Bytes searched, unpacked layers included.
        place_count: Files, streams and pages searched, layers not counted.
    """

    hits: list[Hit] = field(default_factory=list)
    byte_count: int = 0
    place_count: int = 0

    def markers(self) -> set[str]:
        """Names of the markers that were found."""
        return {hit.marker for hit in self.hits}


class Search:
    """All markers and contents to look for, and what came of it.

    Args:
        markers: Secrets, searched in every encoding.
        contents: (name, bytes) of whole samples, searched by their digests: a content hash lets
            anyone who can guess a sample confirm it.
    """

    def __init__(
        self, markers: Iterable[Marker], contents: Iterable[tuple[str, bytes]] = ()
    ) -> None:
        patterns: dict[bytes, tuple[str, str]] = {}
        for marker in markers:
            for pattern, encoding in patterns_of(marker.value).items():
                patterns.setdefault(pattern, (marker.name, encoding))
        for name, content in contents:
            for encoding, pattern in digests_of(content):
                if len(pattern) >= PATTERN_BYTES_MIN:
                    patterns.setdefault(pattern, (name, encoding))
        self.matcher = Matcher(patterns)
        self.report = SearchReport()

    def bytes_of(self, place: str, searched: bytes) -> None:
        """Searches bytes and all that is packed inside them."""
        self.report.place_count += 1
        self._layers(place, searched)

    def stream(self, place: str, searched: bytes) -> None:
        """Searches one direction of a connection, raw and put together from its frames."""
        self.bytes_of(place, searched)
        for part, joined in http2_parts(searched):
            self._layers(f"{place} {part}", joined)

    def file(self, path: Path) -> None:
        """Searches a file's name and content; values of a database one by one besides."""
        self.bytes_of(f"name of {path}", str(path).encode("utf-8", "surrogateescape"))
        for place, part in _parts(path):
            self._layers(place, part)
        for place, joined in sqlite_values(path):
            self._layers(place, joined)

    def folder(self, folder: Path) -> None:
        """Searches every file below a folder; links and sockets are searched by name."""
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                self.file(path)
            else:
                self.bytes_of(f"name of {path}", str(path).encode("utf-8", "surrogateescape"))

    def _layers(self, place: str, searched: bytes) -> None:
        for name, layer in layers(searched, place):
            self.report.byte_count += len(layer)
            self.report.hits += self.matcher.hits(layer, name)


def _parts(path: Path) -> Iterator[tuple[str, bytes]]:
    """A file in overlapping parts; almost every file is one part."""
    with path.open("rb") as stream:
        start, held = 0, b""
        while part := stream.read(CHUNK):
            yield f"{path} from {start}", held + part
            held = (held + part)[-OVERLAP:]
            start += len(part)
