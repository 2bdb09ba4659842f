"""`perimeter-agent mask`: mask a file, check the detectors of this device, measure them.

perimeter-agent mask FILE.jsonl --out OUT.jsonl [--level strict|balanced|light] …
perimeter-agent mask check
perimeter-agent mask eval LABELLED.parquet [--split test]
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from edge_agent.masking.child import ChildMasker
    from edge_agent.masking.policy import MaskingPolicy
    from edge_agent.masking.seam import Held, Masked

_BATCH = 256
_SPEED_TEXT = "The customer, Ann Fisher of Oak Street 12, called on 3 May on her order. " * 4


def add_arguments(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `mask` command to a parser; `run` answers it."""
    parser = subparsers.add_parser(
        "mask",
        help="mask a file of texts, check the detectors, or measure them",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="FILE.jsonl | check | eval")
    parser.add_argument("labelled", nargs="?", type=Path, help="for eval: labelled Parquet file")
    parser.add_argument("--out", type=Path, help="for a file: where the answers go")
    parser.add_argument("--level", choices=("strict", "balanced", "light"), default="balanced")
    parser.add_argument("--signed-by", default="", help="site lead who accepts level light")
    parser.add_argument("--language", default="en", help="BCP 47 tag of the texts")
    parser.add_argument("--detector", default="builtin", help="builtin, spacy:DIR, …")
    parser.add_argument("--detector-sha256", default="", help="pinned digest of that folder")
    parser.add_argument("--pack", default="mixed", help="pack name or folder")
    parser.add_argument("--allow", action="append", default=[], metavar="TERM")
    parser.add_argument("--deny", action="append", default=[], metavar="TERM")
    parser.add_argument("--split", default="", help="for eval: only rows of this split")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the `mask` command.

    Returns:
        0 when all went well, 1 when a check failed, 2 for wrong arguments or unreadable files.
    """
    from edge_agent.masking.errors import MaskingError

    try:
        if args.target == "check":
            return _check(_policy(args))
        if args.target == "eval":
            return _evaluate(_policy(args), args)
        return _mask_file(_policy(args), args)
    except (MaskingError, OSError, ValueError) as error:
        sys.stderr.write(f"perimeter-agent mask: {error}\n")
        return 2


def _policy(args: argparse.Namespace) -> "MaskingPolicy":
    from edge_agent.masking.policy import MaskingPolicy
    from edge_agent.masking.seam import Level

    return MaskingPolicy(
        level=Level(args.level),
        light_signed_by=args.signed_by,
        languages=(args.language.split("-")[0].lower(),),
        detector=args.detector,
        detector_sha256=args.detector_sha256,
        pack=args.pack,
        allow=tuple(args.allow),
        deny=tuple(args.deny),
    )


def _mask_file(policy: "MaskingPolicy", args: argparse.Namespace) -> int:
    from edge_agent.masking.child import ChildMasker

    if args.out is None:
        raise ValueError("--out is missing; say where the masked texts go")
    source = Path(args.target)
    # The answers appear whole or not at all.
    partial = args.out.with_name(args.out.name + ".partial")
    with (
        source.open(encoding="utf-8") as lines,
        partial.open("w", encoding="utf-8") as target,
        ChildMasker(policy) as masker,
    ):
        masked, held = _mask_lines(masker, lines, target, args.language)
    partial.replace(args.out)
    sys.stderr.write(f"{masked} masked, {held} held, written to {args.out}\n")
    return 0


def _mask_lines(
    masker: "ChildMasker", lines: TextIO, target: TextIO, language: str
) -> tuple[int, int]:
    counts = {"masked": 0, "held": 0}
    for batch in _batches(_rows(lines)):
        answers = masker.mask_many([row["text"] for row in batch], language=language)
        for row, answer in zip(batch, answers, strict=True):
            line = answer_line(row["id"], answer)
            counts[line["state"]] += 1
            target.write(json.dumps(line, ensure_ascii=False) + "\n")
    return counts["masked"], counts["held"]


def answer_line(item_id: Any, answer: "Masked | Held") -> dict[str, Any]:
    """One line of the output: state, masked text, spans with offsets in the raw text, reason."""
    from edge_agent.masking.seam import Held

    if isinstance(answer, Held):
        reason = f"{answer.reason.value}: {answer.detail}"
        return {"id": item_id, "state": "held", "masked": None, "spans": [], "reason": reason}
    spans = [
        {"start": s.raw_start, "end": s.raw_end, "type": s.entity_type, "score": s.score}
        for s in answer.spans
    ]
    return {
        "id": item_id, "state": "masked", "masked": answer.text, "spans": spans, "reason": None
    }  # fmt: skip


def _rows(lines: TextIO) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is no JSON: {error}") from error
        if not isinstance(row, dict) or "id" not in row or not isinstance(row.get("text"), str):
            raise ValueError(f'line {number} needs "id" and a string "text"')
        yield row


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _check(policy: "MaskingPolicy") -> int:
    """Canaries, route to the network, digests, speed; prints one line each."""
    import time

    from edge_agent.masking.canaries import CANARIES, failed_canaries
    from edge_agent.masking.child import ChildMasker
    from edge_agent.masking.seam import Masked

    language = policy.languages[0]
    with ChildMasker(policy) as masker:
        began = time.monotonic()
        first = masker.mask("", language=language)
        started = time.monotonic() - began
        if not isinstance(first, Masked):
            _say("start", f"FAILED ({first.reason.value}: {first.detail})")
            return 1
        failed = failed_canaries(masker, language=language)
        seconds, cpu = _speed(masker, language)
    _say("start", f"ok, {started:.2f} s")
    _say("canaries", f"FAILED: {', '.join(failed)}" if failed else f"ok, {len(CANARIES)} masked")
    _say("network", "ok, every look-up and connection is refused inside the masking process")
    _say("policy", first.report.policy_version)
    _say("detectors", f"sha256 {first.report.detector_digest.hex()}")
    for name, digest in _digests(policy):
        _say(name, f"sha256 {digest}")
    _say("speed", f"{seconds * 1000:.2f} ms for {cpu} characters, in batches")
    _say("recall", _measured_recall(policy))
    return 1 if failed else 0


def _speed(masker: "ChildMasker", language: str) -> tuple[float, int]:
    import time

    texts = [_SPEED_TEXT[:300]] * 256
    began = time.monotonic()
    masker.mask_many(texts, language=language)
    return (time.monotonic() - began) / len(texts), 300


def _digests(policy: "MaskingPolicy") -> list[tuple[str, str]]:
    from edge_agent.masking.detectors import folder_digest
    from edge_agent.masking.pack import load_pack

    pack = load_pack(policy.pack_folder, expected_sha256=policy.pack_sha256)
    lines = [(f"pack {pack.name}", pack.digest.hex())]
    if policy.detector != "builtin":
        lines.append((policy.detector, folder_digest(Path(policy.detector.partition(":")[2]))))
    return lines


def _measured_recall(policy: "MaskingPolicy") -> str:
    """The recall that the pack's card states: masking lowers risk, it never makes anonymous."""
    card = policy.pack_folder / "card.json"
    if not card.is_file():
        return "not measured for this pack; run: perimeter-agent mask eval LABELLED.parquet"
    measured = json.loads(card.read_text("utf-8")).get("measured", {})
    parts = [f"{name} {share}" for name, share in measured.items()]
    return "; ".join(parts) + " (risk reduction, not anonymisation)"


def _evaluate(policy: "MaskingPolicy", args: argparse.Namespace) -> int:
    from edge_agent.masking.child import ChildMasker
    from edge_agent.masking.evaluate import measure, read_labelled, table_of

    if args.labelled is None:
        raise ValueError("eval needs a Parquet file with columns text and spans")
    examples = read_labelled(args.labelled, split=args.split)
    with ChildMasker(policy) as masker:
        result = measure(masker, examples, language=args.language)
    sys.stdout.write(table_of(result) + "\n")
    return 0


def _say(name: str, value: str) -> None:
    sys.stdout.write(f"{name:<12} {value}\n")
