"""Files that appear whole or not at all, and reading them row by row within limits."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from review_portal.interchange.errors import FileUnreadable, TargetExists
from review_portal.interchange.row_errors import RowProblem

ROW_CHARACTERS_MAX = 24 * 1024 * 1024
"""Longest row that is read; an 8 MiB image takes 11 million characters in base64."""
_CHUNK = 1 << 20
_NOT_SPACE = re.compile(r"[^ \t\n\r]")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Gives a folder to fill, which becomes `target` when the block ends without an error.

    Raises:
        TargetExists: There is something at `target` already.
    """
    _refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield partial
        partial.chmod(0o700)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def new_text_file(target: Path) -> Iterator[IO[str]]:
    """Gives a UTF-8 file to fill, which becomes `target` when the block ends without an error.

    Raises:
        TargetExists: There is something at `target` already.
    """
    _refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="\n", dir=target.parent, prefix=".export.", delete=False
    ) as stream:
        partial = Path(stream.name)
        try:
            yield stream
            stream.flush()
            partial.rename(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _refuse_existing(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise TargetExists(f"{target} exists; name a path that does not, or move it away first")


def to_json(value: object) -> str:
    """Returns one line of JSON with keys in their given order.

    >>> to_json({"b": 1, "a": "é"})
    '{"b":1,"a":"é"}'
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def json_lines(path: Path) -> Iterator[tuple[int, object]]:
    """Reads JSON Lines: (line number, value), blank lines left out, bad lines as problems.

    Raises:
        FileUnreadable: There is no such file.
    """
    with _opened(path) as stream:
        number = 0
        while line := stream.readline(ROW_CHARACTERS_MAX + 1):
            number += 1
            if len(line) > ROW_CHARACTERS_MAX:
                yield (
                    number,
                    RowProblem(
                        f"the row is longer than {ROW_CHARACTERS_MAX} characters", "split the item"
                    ),
                )
                while line and not line.endswith("\n"):
                    line = stream.readline(_CHUNK)
            elif line.strip():
                yield number, _parsed(line)


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return RowProblem(f"the row is not JSON: {error}", "write one JSON object on each line")


def json_array(path: Path) -> Iterator[tuple[int, object]]:
    """Reads the elements of one JSON array without holding the file: (position from 1, value).

    Raises:
        FileUnreadable: The file is no JSON array, or an element breaks its syntax: what follows a
            broken element cannot be read.
    """
    with _opened(path) as stream:
        window = _Window(stream, path.name)
        if window.next_mark() != "[":
            raise FileUnreadable(f"{path.name} is not a JSON array; export it again as JSON")
        number, mark = 0, window.next_mark()
        if mark == "]":
            return
        window.place -= len(mark)
        while mark != "]":
            number += 1
            yield number, window.element(number)
            mark = window.next_mark()
            if mark not in {",", "]"}:
                raise FileUnreadable(f"{path.name}: the array breaks off after element {number}")


class _Window:
    """The part of a stream that is in memory, and how far it is read."""

    def __init__(self, stream: IO[str], name: str) -> None:
        self.text = ""
        self.place = 0
        self._stream = stream
        self._name = name
        self._decoder = json.JSONDecoder()

    def next_mark(self) -> str:
        """Takes the next character that is no space; empty at the end."""
        while True:
            found = _NOT_SPACE.search(self.text, self.place)
            if found is not None:
                self.place = found.end()
                return found.group()
            self.place = len(self.text)
            if not self._grown(_CHUNK):
                return ""

    def element(self, number: int) -> object:
        """Takes the next JSON value."""
        if self.next_mark():
            self.place -= 1
        chunk = _CHUNK
        while True:
            problem = f"the array breaks off after element {number}"
            try:
                value, end = self._decoder.raw_decode(self.text, self.place)
            except (ValueError, RecursionError) as error:
                problem = f"element {number} is not JSON: {error}"
            else:
                if end < len(self.text):  # a number at the end of the window could go on
                    self.place = end
                    return value
            if len(self.text) - self.place > ROW_CHARACTERS_MAX or not self._grown(chunk):
                raise FileUnreadable(f"{self._name}: {problem}")
            chunk *= 2

    def _grown(self, chunk: int) -> bool:
        more = self._stream.read(chunk)
        self.text, self.place = self.text[self.place :] + more, 0
        return bool(more)


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    try:
        stream = path.open(encoding="utf-8-sig", errors="strict")
    except OSError as error:
        raise FileUnreadable(f"{path} cannot be read: {error.strerror}; check the path") from None
    with stream:
        try:
            yield stream
        except UnicodeDecodeError as error:
            raise FileUnreadable(
                f"{path.name} is not UTF-8 near byte {error.start}; save it as UTF-8"
            ) from None
