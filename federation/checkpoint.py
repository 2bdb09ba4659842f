"""A round's checkpoint: all that the next round needs, chained by hashes to the round before.

`round-00003/arrays.frame` holds parameters, server momenta and code book; `round.json` holds the
round's facts, the digest of the request, the SHA-256 of the arrays and of the previous round's
`round.json`. A damaged round, or one of another request, ends the chain: the run goes on from the
last round before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation import frames
from federation.aggregation import ServerState
from federation.errors import CheckpointInvalid, FrameInvalid
from federation.networks import Arrays
from federation.run_files import write_folder

ARRAYS_NAME = "arrays.frame"
ROUND_NAME = "round.json"
_PREFIXES = ("parameter/", "momentum/", "second_moment/", "average/")


@dataclass(frozen=True, eq=False)
class RoundState:
    """What the loop carries from round to round.

    Attributes:
        round_number: Rounds done, 0 before the first.
        arrays: Parameters after that round.
        server: Momenta of the aggregation rule, and the running mean of the models.
        code_book: float32[K, d].
        chain: SHA-256 in hex of the round's facts, "" before the first.
    """

    round_number: int
    arrays: Arrays
    server: ServerState
    code_book: NDArray[np.float32]
    chain: str = ""


def round_folder(folder: Path, round_number: int) -> Path:
    """Returns the folder of a round, `round-00001` for the first."""
    return folder / f"round-{round_number:05d}"


def save(
    folder: Path, state: RoundState, request_digest: str, facts: Mapping[str, Any]
) -> RoundState:
    """Writes a round's checkpoint whole and returns the state with its chain hash.

    Args:
        folder: The run's folder.
        state: State after the round; its `chain` is that of the round before.
        request_digest: `TrainingRequest.digest()`.
        facts: What happened in the round, for people: counts, reasons, seconds.
    """
    arrays = frames.encode(_frame(state))
    record = {
        "round": state.round_number,
        "request": request_digest,
        "previous": state.chain,
        "arrays_sha256": hashlib.sha256(arrays).hexdigest(),
        "facts": dict(facts),
    }
    raw = json.dumps(record, indent=1, sort_keys=True, allow_nan=False).encode()
    target = round_folder(folder, state.round_number)
    write_folder(target, {ARRAYS_NAME: arrays, ROUND_NAME: raw})
    chain = hashlib.sha256(raw).hexdigest()
    return RoundState(state.round_number, state.arrays, state.server, state.code_book, chain)


def resume(folder: Path, start: RoundState, request_digest: str) -> RoundState:
    """Returns the state after the last round whose whole chain is valid, or `start`.

    Args:
        folder: The run's folder.
        start: The state before the first round.
        request_digest: `TrainingRequest.digest()`; rounds of another request do not count.
    """
    last, chain = 0, ""
    while True:
        try:
            chain = _link(folder, last + 1, chain, request_digest)
        except CheckpointInvalid:
            break
        last += 1
    return _load(folder, last, chain) if last else start


def _link(folder: Path, round_number: int, previous: str, request_digest: str) -> str:
    """Checks one round's files against the chain and returns its hash."""
    place = round_folder(folder, round_number)
    try:
        raw, arrays = (place / ROUND_NAME).read_bytes(), (place / ARRAYS_NAME).read_bytes()
        record = json.loads(raw)
        told = (record["round"], record["request"], record["previous"], record["arrays_sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointInvalid(f"round {round_number} cannot be read: {error}") from None
    found = hashlib.sha256(arrays).hexdigest()
    if told != (round_number, request_digest, previous, found):
        raise CheckpointInvalid(f"round {round_number} is damaged or of another request")
    return hashlib.sha256(raw).hexdigest()


def _frame(state: RoundState) -> frames.Frame:
    server = state.server
    groups = (state.arrays, server.momentum, server.second_moment, server.average)
    arrays = {
        p + n: a for p, group in zip(_PREFIXES, groups, strict=True) for n, a in group.items()
    }
    fields = {"round": state.round_number, "step": server.step}
    return frames.Frame("checkpoint", fields, {**arrays, "code_book": state.code_book})


def _load(folder: Path, round_number: int, chain: str) -> RoundState:
    place = round_folder(folder, round_number) / ARRAYS_NAME
    try:
        frame = frames.decode(place.read_bytes())
    except FrameInvalid as error:
        raise CheckpointInvalid(f"round {round_number} cannot be read: {error}") from None
    parameters, momentum, second, average = (
        {n.removeprefix(p): a.copy() for n, a in frame.arrays.items() if n.startswith(p)}
        for p in _PREFIXES
    )
    server = ServerState(momentum, second, int(frame.fields["step"]), average)
    return RoundState(round_number, parameters, server, frame.arrays["code_book"].copy(), chain)
