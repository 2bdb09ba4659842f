"""Takes commands to sites and spares them what they hold: a fixed layer travels once.

    courier = Courier(transport, timeout_seconds=600)
    replies = courier.ask(command, transport.sites())

A layer that nobody trains (`networks.feature_names`) can be a hundred times larger than what is
trained on it. The first command to a site brings it, later ones name it by its digest. A trainer
that has started again does not hold it any more and says so, and an older one does not know such a
command: both are asked again with the layer, in the same round.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from federation import frames, messages
from federation.errors import FrameInvalid, LayerUnknown
from federation.networks import feature_names

_OLDER = FrameInvalid.__name__
_LACKING = (_OLDER, LayerUnknown.__name__)


@dataclass(frozen=True, eq=False)
class Replies:
    """Frames of the sites that answered in time, and the reason for each that did not."""

    frames: Mapping[str, bytes]
    silent: Mapping[str, str]


class Transport(Protocol):
    """Carries frames to sites and back."""

    def sites(self) -> list[str]:
        """Sites that are online now, in name order."""
        ...

    def exchange(self, frame: bytes, sites: list[str], *, timeout_seconds: float) -> Replies:
        """Sends one frame to all sites; returns answers and, per silent site, the reason."""
        ...


class Courier:
    """Asks sites over a transport and remembers which of them hold the layer.

    Args:
        transport: Carries frames.
        timeout_seconds: Longest wait for answers.
    """

    def __init__(self, transport: Transport, *, timeout_seconds: float) -> None:
        self._transport, self._timeout = transport, timeout_seconds
        self._holders: set[str] = set()
        self._older: set[str] = set()

    def sites(self) -> list[str]:
        """Sites that are online now, in name order."""
        return self._transport.sites()

    def ask(self, command: messages.Command, sites: list[str]) -> Replies:
        """Sends a command to all sites and returns their answers."""
        if not feature_names(command.spec):
            return self._exchange(command, sites, with_layer=True)
        # One frame for all: two, one after the other, would make the round wait twice.
        spared = self._holders.issuperset(sites)
        replies = self._exchange(command, sites, with_layer=not spared)
        lacks = _lacks(replies)
        if spared and lacks:
            self._older |= {site for site, reason in lacks.items() if reason == _OLDER}
            again = self._exchange(command, sorted(lacks), with_layer=True)
            answered = {s: raw for s, raw in replies.frames.items() if s not in lacks}
            replies = Replies({**answered, **again.frames}, {**replies.silent, **again.silent})
            lacks = _lacks(again)
        # Whoever refuses for another reason has read the command, and holds its layer.
        self._holders = (self._holders | (set(replies.frames) - set(lacks))) - self._older
        return replies

    def _exchange(
        self, command: messages.Command, sites: list[str], *, with_layer: bool
    ) -> Replies:
        frame = frames.encode(messages.command_frame(command, with_layer=with_layer))
        return self._transport.exchange(frame, sites, timeout_seconds=self._timeout)


def _lacks(replies: Replies) -> dict[str, str]:
    """Returns the sites that did not get to the command itself, with the reason that they gave."""
    found = {}
    for site, raw in replies.frames.items():
        with contextlib.suppress(FrameInvalid):
            reason = messages.refusal_of(frames.decode(raw))
            if reason in _LACKING:
                found[site] = reason
    return found
