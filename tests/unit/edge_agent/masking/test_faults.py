"""Whatever goes wrong, the text is held: no fault shows a text."""

import hashlib
import json
import shutil
import sys
import textwrap
import time
from dataclasses import replace

import pytest

from edge_agent.masking.child import ChildMasker, check_startable
from edge_agent.masking.errors import MaskingError, PackError
from edge_agent.masking.pipeline import BuiltinMasker
from edge_agent.masking.policy import PACKS_FOLDER, MaskingLimits, MaskingPolicy
from edge_agent.masking.seam import Held, HeldReason, Masked

pytestmark = pytest.mark.presidio

# On a busy machine a child that answers at once may still need seconds to get its turn.
PATIENT = MaskingLimits(time_out_seconds=120.0, start_seconds=120.0, batch_texts=8)
HASTY = replace(PATIENT, time_out_seconds=0.4)
PRELUDE = """
import os, sys, json, time, signal
def read():
    size = sys.stdin.buffer.read(4)
    if len(size) < 4:
        sys.exit(0)
    return json.loads(sys.stdin.buffer.read(int.from_bytes(size, "big")))
def write(value):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    sys.stdout.buffer.write(len(body).to_bytes(4, "big") + body)
    sys.stdout.buffer.flush()
DIGEST = "00" * 32
def answer(text, digest=DIGEST):
    report = ["perimeter-masking-1", digest, "balanced", [], True]
    return {"text": text, "spans": [], "report": report}
read()
"""


def impostor(body, limits=PATIENT):
    script = PRELUDE + textwrap.dedent(body)
    return ChildMasker(MaskingPolicy(limits=limits), command=(sys.executable, "-c", script))


def reason(answer):
    assert isinstance(answer, Held), answer
    return answer.reason


def test_a_child_that_hangs_holds_the_text():
    with impostor("write({'ready': DIGEST}); time.sleep(600)", HASTY) as masker:
        assert reason(masker.mask("secret")) is HeldReason.TIMEOUT
        assert not masker.is_running


def test_a_child_that_hangs_at_start_holds_the_text():
    limits = replace(PATIENT, start_seconds=0.3)
    with impostor("time.sleep(600)", limits) as masker:
        assert reason(masker.mask("secret")) is HeldReason.TIMEOUT


def test_a_child_that_dies_holds_the_text():
    with impostor("write({'ready': DIGEST}); read(); os.kill(os.getpid(), 9)") as masker:
        assert reason(masker.mask("secret")) is HeldReason.CRASH


def test_a_child_that_cannot_start_holds_the_text():
    with ChildMasker(MaskingPolicy(), command=("/nonexistent/python",)) as masker:
        assert reason(masker.mask("secret")) is HeldReason.CRASH


@pytest.mark.parametrize(
    "reply",
    [
        "write(b'no json')",
        "write({'answers': []})",
        "write({'answers': [7]})",
        "write({'answers': [{'text': 'x'}]})",
        "write({'nothing': 1})",
        "write([1])",
        "sys.stdout.buffer.write(b'\\xff' * 64); sys.stdout.buffer.flush()",
    ],
)
def test_nonsense_from_the_child_holds_the_text(reply):
    with impostor(f"write({{'ready': DIGEST}}); read(); {reply}; time.sleep(600)") as masker:
        assert reason(masker.mask("secret")) is HeldReason.MALFORMED_ANSWER


def test_an_answer_for_another_text_holds_the_text():
    body = (
        "write({'ready': DIGEST}); read(); write({'answers': [answer('other')]}); time.sleep(600)"
    )
    with impostor(body) as masker:
        assert reason(masker.mask("secret")) is HeldReason.MALFORMED_ANSWER


def test_an_unverified_answer_holds_the_text():
    body = """
    write({'ready': DIGEST}); texts = read()['texts']
    made = answer(texts[0]); made['report'][4] = False
    write({'answers': [made]}); time.sleep(600)
    """
    with impostor(body) as masker:
        assert reason(masker.mask("secret")) is HeldReason.MALFORMED_ANSWER


def test_detectors_that_change_while_running_hold_the_text():
    body = """
    write({'ready': DIGEST}); texts = read()['texts']
    write({'answers': [answer(texts[0], 'ff' * 32)]}); time.sleep(600)
    """
    with impostor(body) as masker:
        assert reason(masker.mask("secret")) is HeldReason.MODEL_CHANGED


def test_one_poisonous_text_holds_only_itself():
    body = """
    write({'ready': DIGEST})
    while True:
        texts = read()['texts']
        if 'poison' in texts:
            os.kill(os.getpid(), 9)
        write({'answers': [answer(t) for t in texts]})
    """
    with impostor(body) as masker:
        texts = ["a", "b", "poison", "c", "d"]
        answers = masker.mask_many(texts)
        assert [isinstance(a, Masked) for a in answers] == [True, True, False, True, True]


def copied_policy(tmp_path):
    target = tmp_path / "pack"
    shutil.copytree(PACKS_FOLDER / "mixed", target)
    digest = hashlib.sha256((target / "pack.json").read_bytes()).hexdigest()
    return target, MaskingPolicy(pack=str(target), pack_sha256=digest)


@pytest.mark.parametrize("name", ["gazetteer.npz", "tagger.onnx", "pack.json"])
def test_a_changed_model_file_is_refused(tmp_path, name):
    folder, policy = copied_policy(tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(PackError):
        BuiltinMasker(policy)


def test_a_changed_model_file_holds_every_text(tmp_path):
    folder, policy = copied_policy(tmp_path)
    (folder / "tagger.onnx").write_bytes(b"altered")
    with ChildMasker(policy) as masker:
        answers = masker.mask_many(["one", "two"])
    assert [reason(a) for a in answers] == [HeldReason.MODEL_CHANGED] * 2


def test_a_graph_that_does_not_fit_its_labels_is_refused(tmp_path):
    folder, _ = copied_policy(tmp_path)
    header = json.loads((folder / "pack.json").read_text())
    header["labels"] = header["labels"][:-1]
    content = json.dumps(header)
    (folder / "pack.json").write_text(content)
    digest = hashlib.sha256(content.encode()).hexdigest()
    with pytest.raises(PackError, match="labels"):
        BuiltinMasker(MaskingPolicy(pack=str(folder), pack_sha256=digest))


def test_a_missing_pack_holds_every_text(tmp_path):
    with ChildMasker(MaskingPolicy(pack=str(tmp_path / "none"), pack_sha256="00")) as masker:
        assert reason(masker.mask("one")) is HeldReason.MODEL_CHANGED


def test_another_pack_than_the_pinned_one_is_refused():
    with pytest.raises(PackError, match="not the pinned one"):
        BuiltinMasker(MaskingPolicy(pack_sha256="ab" * 32))


def test_a_memory_limit_that_is_too_small_holds_the_text():
    limits = MaskingLimits(memory_mb=64, start_seconds=120.0)
    with ChildMasker(MaskingPolicy(limits=limits)) as masker:
        assert isinstance(masker.mask("secret"), Held)


def test_an_unknown_language_is_held(masker):
    assert reason(masker.mask("Bonjour", language="fr")) is HeldReason.UNKNOWN_LANGUAGE


def test_another_script_is_held_whatever_language_is_claimed(masker):
    assert reason(masker.mask("Меня зовут Анна Петрова")) is HeldReason.UNKNOWN_LANGUAGE


def test_a_text_of_a_megabyte_is_held(masker, child):
    assert reason(masker.mask("word " * 200_000)) is HeldReason.OVER_LENGTH
    assert reason(child.mask("word " * 200_000)) is HeldReason.OVER_LENGTH


def test_broken_characters_are_held(masker, child):
    assert reason(masker.mask("bad \ud800 end")) is HeldReason.UNREADABLE
    assert reason(child.mask("bad \ud800 end")) is HeldReason.UNREADABLE


def test_a_detector_that_raises_holds_the_text(policy, monkeypatch):
    masker = BuiltinMasker(policy)

    def fail(_text):
        raise RuntimeError("the text is secret")

    monkeypatch.setattr(masker._presidio, "find", fail)
    answer = masker.mask("secret")
    assert reason(answer) is HeldReason.DETECTOR_FAILED
    assert "secret" not in answer.detail


def test_a_tagger_that_raises_holds_every_text(policy, monkeypatch):
    masker = BuiltinMasker(policy)

    def fail(*_arguments):
        raise RuntimeError("broken")

    monkeypatch.setattr(masker, "_named", fail)
    answers = masker.mask_many(["one", "two"])
    assert [reason(a) for a in answers] == [HeldReason.DETECTOR_FAILED] * 2


def test_a_pattern_that_runs_out_of_time_holds_the_text(policy):
    import logging

    masker = BuiltinMasker(policy)
    email = next(r for r in masker._presidio._recognizers if "EMAIL" in r.supported_entities[0])

    def analyze(*_arguments):
        logging.getLogger("presidio-analyzer").warning("Regex pattern '%s' timed out", "x")
        return []

    email.analyze = analyze
    assert reason(masker.mask("mail bob@example.com")) is HeldReason.DETECTOR_FAILED


def test_a_closed_masker_holds_every_text(policy):
    masker = BuiltinMasker(policy)
    masker.close()
    assert reason(masker.mask("one")) is HeldReason.CLOSED
    child = ChildMasker(policy)
    child.close()
    assert reason(child.mask("one")) is HeldReason.CLOSED


def test_an_idle_child_ends_and_the_next_text_starts_a_new_one():
    body = """
    write({'ready': DIGEST})
    while True:
        write({'answers': [answer(t) for t in read()['texts']]})
    """
    with impostor(body, replace(PATIENT, idle_seconds=0.2)) as masker:
        assert isinstance(masker.mask("a"), Masked)
        deadline = time.monotonic() + 120
        while masker.is_running and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not masker.is_running
        assert isinstance(masker.mask("b"), Masked)


def test_a_policy_that_cannot_run_is_told_before_any_text(tmp_path):
    with pytest.raises(MaskingError, match=r"no readable pack\.json"):
        check_startable(MaskingPolicy(pack=str(tmp_path), pack_sha256="00"))
