"""Masking in a child process that lives only while there is work.

Presidio costs about 100 MB, so the daemon does not carry it. The child is started with the first
text and stopped after a while without any. Whatever goes wrong over there (it hangs, dies, runs out
of memory, answers nonsense) is `Held` over here.
"""

import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from edge_agent.masking.errors import MaskingError
from edge_agent.masking.frames import (
    MAX_FRAME_BYTES,
    FrameError,
    answer_from_json,
    pack_frame,
    read_frame,
)
from edge_agent.masking.policy import MaskingPolicy, policy_to_json
from edge_agent.masking.seam import Held, HeldReason, Masked

_SECONDS_PER_TEXT = 0.02
_READ_BYTES = 1 << 16
_KEPT_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "HOME")
_REASONS = {"PackError": HeldReason.MODEL_CHANGED, "MaskingError": HeldReason.CANARY_FAILED}


class _ChildFailed(Exception):
    def __init__(self, held: Held) -> None:
        super().__init__(held.detail)
        self.held = held


class ChildMasker:
    """A `Masker` whose work happens in a limited child process; safe to call from any thread.

    Args:
        policy: What to mask; `policy.limits` bounds time, memory and idleness.
        command: Command line of the child; tests replace it.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        policy: MaskingPolicy,
        *,
        command: Sequence[str] = (sys.executable, "-m", "edge_agent.masking.child"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._command = tuple(command)
        self._clock = clock
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._digest: bytes | None = None
        self._used_at = 0.0
        self._watcher: threading.Timer | None = None
        self._closed = False

    @property
    def digest(self) -> bytes | None:
        """Detector digest that the child stated at its last start; None before the first."""
        return self._digest

    @property
    def is_running(self) -> bool:
        """True while a child process is alive."""
        return self._process is not None and self._process.poll() is None

    def mask(self, text: str, *, language: str = "en") -> Masked | Held:
        """Mask one text; see `Masker.mask`."""
        return self.mask_many([text], language=language)[0]

    def mask_many(self, texts: Sequence[str], *, language: str = "en") -> list[Masked | Held]:
        """Mask any number of texts, in order; see `Masker.mask_many`."""
        answers: list[Masked | Held] = []
        size = self._policy.limits.batch_texts
        with self._lock:
            for first in range(0, len(texts), size):
                answers += self._mask_batch(list(texts[first : first + size]), language)
            self._used_at = self._clock()
            self._watch()
        return answers

    def stop(self) -> None:
        """End the child process; the next text starts a new one."""
        with self._lock:
            process, self._process = self._process, None
            if process is None:
                return
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def close(self) -> None:
        """End the child process for good."""
        with self._lock:
            self._closed = True
            if self._watcher is not None:
                self._watcher.cancel()
            self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _mask_batch(self, texts: list[str], language: str) -> list[Masked | Held]:
        limit = self._policy.limits.max_chars
        short = [i for i, text in enumerate(texts) if len(text) <= limit]
        answers: list[Masked | Held] = [
            Held(HeldReason.OVER_LENGTH, f"longer than {limit} characters") for _ in texts
        ]
        for i, answer in zip(short, self._ask([texts[i] for i in short], language), strict=True):
            answers[i] = answer
        return answers

    def _ask(self, texts: list[str], language: str) -> list[Masked | Held]:
        """Ask the child; when it fails on a batch, halve it until only the culprit is held."""
        if not texts:
            return []
        if self._closed:
            return [Held(HeldReason.CLOSED, "the masker is closed")] * len(texts)
        try:
            started = self._ensure_started()
        except _ChildFailed as failure:
            self.stop()
            return [failure.held] * len(texts)
        try:
            return self._exchange(started, texts, language)
        except _ChildFailed as failure:
            self.stop()
            if len(texts) == 1:
                return [failure.held]
            middle = len(texts) // 2
            return self._ask(texts[:middle], language) + self._ask(texts[middle:], language)

    def _exchange(
        self, process: subprocess.Popen[bytes], texts: list[str], language: str
    ) -> list[Masked | Held]:
        seconds = self._policy.limits.time_out_seconds + _SECONDS_PER_TEXT * len(texts)
        deadline = self._clock() + seconds
        try:
            frame = pack_frame({"texts": texts, "language": language})
            reply = self._round_trip(process, frame, deadline)
            pairs = zip(reply["answers"], texts, strict=True)
            answers = [answer_from_json(value, text) for value, text in pairs]
        except (FrameError, KeyError, TypeError, ValueError) as error:
            raise _ChildFailed(
                Held(HeldReason.MALFORMED_ANSWER, "the masking process answered nonsense")
            ) from error
        if any(isinstance(a, Masked) and a.report.detector_digest != self._digest for a in answers):
            raise _ChildFailed(
                Held(HeldReason.MODEL_CHANGED, "the detectors changed while running")
            )
        return answers

    def _ensure_started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.stop()
        deadline = self._clock() + self._policy.limits.start_seconds
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_child_environment(),
                close_fds=True,
            )
        except OSError as error:
            held = Held(HeldReason.CRASH, "the masking process cannot be started")
            raise _ChildFailed(held) from error
        self._process = process
        opening = pack_frame({"policy": policy_to_json(self._policy)})
        try:
            reply = self._round_trip(process, opening, deadline)
        except FrameError as error:
            held = Held(HeldReason.MALFORMED_ANSWER, "the masking process answered nonsense")
            raise _ChildFailed(held) from error
        self._digest = _digest_of(reply)
        return process

    def _round_trip(self, process: subprocess.Popen[bytes], frame: bytes, deadline: float) -> Any:
        """Write one frame and read one, both within the deadline."""
        assert process.stdin is not None
        assert process.stdout is not None
        source, target = process.stdout.fileno(), process.stdin.fileno()
        os.set_blocking(source, False)
        os.set_blocking(target, False)
        received = bytearray()
        waiting = memoryview(frame)
        with selectors.DefaultSelector() as selector:
            selector.register(source, selectors.EVENT_READ)
            selector.register(target, selectors.EVENT_WRITE)
            while not _is_whole(received):
                ready = selector.select(max(0.0, deadline - self._clock()))
                if not ready:
                    raise _ChildFailed(Held(HeldReason.TIMEOUT, "masking took too long"))
                for key, _ in ready:
                    if key.fd == source:
                        received += _read_some(source)
                        continue
                    waiting = waiting[_write_some(target, waiting) :]
                    if not waiting:
                        selector.unregister(target)
        return _value_of(received)

    def _watch(self) -> None:
        """Look again when the child may have been idle for long enough."""
        if self._closed or not self.is_running or self._watcher is not None:
            return
        due = self._used_at + self._policy.limits.idle_seconds - self._clock()
        self._watcher = threading.Timer(max(0.01, due), self._stop_if_idle)
        self._watcher.daemon = True
        self._watcher.start()

    def _stop_if_idle(self) -> None:
        with self._lock:
            self._watcher = None
            if self._clock() - self._used_at >= self._policy.limits.idle_seconds:
                self.stop()
            self._watch()


def _read_some(source: int) -> bytes:
    try:
        content = os.read(source, _READ_BYTES)
    except BlockingIOError:
        return b""
    if not content:
        raise _ChildFailed(Held(HeldReason.CRASH, "the masking process died"))
    return content


def _write_some(target: int, waiting: memoryview) -> int:
    try:
        return os.write(target, waiting[:_READ_BYTES])
    except BlockingIOError:
        return 0
    except OSError as error:
        raise _ChildFailed(Held(HeldReason.CRASH, "the masking process died")) from error


def _is_whole(received: bytearray) -> bool:
    if len(received) < 4:
        return False
    size = int.from_bytes(received[:4], "big")
    if size > MAX_FRAME_BYTES:
        raise FrameError("a frame is too large")
    return len(received) >= 4 + size


def _value_of(received: bytearray) -> Any:
    position = 0

    def read(count: int) -> bytes:
        nonlocal position
        position += count
        return bytes(received[position - count : position])

    return read_frame(read)


def _digest_of(reply: Any) -> bytes:
    """The digest in the first frame of a child, or why there is none."""
    try:
        if "ready" in reply:
            return bytes.fromhex(reply["ready"])
        reason = _REASONS.get(str(reply["refused"]), HeldReason.DETECTOR_MISSING)
        raise _ChildFailed(Held(reason, str(reply["detail"])[:200]))
    except (KeyError, TypeError, ValueError) as error:
        raise FrameError("the first answer of the masking process is malformed") from error


def _child_environment() -> dict[str, str]:
    """No proxies, no tokens, nothing that is not needed to import the package."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return {**kept, **offline, "OMP_NUM_THREADS": "1", "TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS": ""}


def check_startable(policy: MaskingPolicy) -> bytes:
    """Start a child once and stop it again.

    Returns:
        The detector digest, 32 bytes.

    Raises:
        MaskingError: The policy cannot be run; the message says why.
    """
    with ChildMasker(policy) as masker:
        answer = masker.mask("", language=policy.languages[0])
        if isinstance(answer, Held) or masker.digest is None:
            detail = answer.detail if isinstance(answer, Held) else "no digest"
            raise MaskingError(f"masking cannot start: {detail}")
        return masker.digest


if __name__ == "__main__":
    from edge_agent.masking.worker import main

    sys.exit(main())
