"""A key per campaign, in files or in a keyring; old queues move over and lose nothing."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail, null
from keyring.errors import KeyringLocked, PasswordDeleteError
from perimeter.v1 import model_pb2

from edge_agent import audit
from edge_agent.__main__ import main
from edge_agent.config import parse_config
from edge_agent.errors import SealBroken, StorageError
from edge_agent.queue import migration, shredding
from edge_agent.queue.keys import DEVICE, FileKeys, KeyringKeys
from edge_agent.queue.outbox import SealedBatch
from edge_agent.queue.samples import OfferedScore, View
from edge_agent.queue.sealing import Sealer
from edge_agent.queue.stores import open_stores

LAYOUT_1 = Path(__file__).with_name("queue_layout_1.sql").read_text()
A, B = b"a" * 16, b"b" * 16
VIEW = View(b"masked", b"report", 1)
SCORE = OfferedScore(3, 20, 1, 2)


class MemoryKeyring(KeyringBackend):
    """A keyring that keeps passwords in this process, as the package means its backends to be."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.is_locked = False
        self.forgets = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.is_locked:
            raise KeyringLocked
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if not self.forgets:
            self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise PasswordDeleteError


@pytest.fixture
def memory_keyring():
    before = keyring.get_keyring()
    backend = MemoryKeyring()
    keyring.set_keyring(backend)
    yield backend
    keyring.set_keyring(before)


@pytest.fixture(params=["file", "keyring"])
def keys(request, tmp_path, memory_keyring):
    if request.param == "file":
        return FileKeys(tmp_path / "queue.key")
    return KeyringKeys("perimeter-agent test")


def test_every_key_store_makes_a_key_once_and_keeps_it(keys):
    assert keys.get(DEVICE) is None
    made = keys.make(DEVICE)
    assert len(made) == 32
    assert keys.make(DEVICE) == keys.get(DEVICE) == made
    assert keys.make(A.hex()) != made
    assert DEVICE in keys.place(DEVICE)


def test_every_key_store_destroys_one_key_and_leaves_the_others(keys):
    kept = keys.make(A.hex())
    keys.make(B.hex())
    assert keys.delete(B.hex()) is True
    assert keys.get(B.hex()) is None
    assert keys.delete(B.hex()) is False
    assert keys.get(A.hex()) == kept


@pytest.mark.parametrize("backend", [null.Keyring(), fail.Keyring()])
def test_a_keyring_that_keeps_nothing_is_refused(memory_keyring, backend):
    keyring.set_keyring(backend)
    with pytest.raises(StorageError, match='key_store = "file"'):
        KeyringKeys("perimeter-agent test")


def test_without_the_package_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(StorageError, match=r"pip install 'perimeter\[keyring\]'"):
        KeyringKeys("perimeter-agent test")


def test_a_locked_damaged_or_forgetful_keyring_is_told_as_such(memory_keyring):
    keys = KeyringKeys("perimeter-agent test")
    keys.make(DEVICE)
    memory_keyring.is_locked = True
    with pytest.raises(StorageError, match="unlock it"):
        keys.get(DEVICE)
    memory_keyring.is_locked = False
    memory_keyring.kept = dict.fromkeys(memory_keyring.kept, "no key")
    with pytest.raises(StorageError, match="damaged"):
        keys.get(DEVICE)
    memory_keyring.kept, memory_keyring.forgets = {}, True
    with pytest.raises(StorageError, match="was not kept"):
        keys.make(DEVICE)


def config_of(folder: Path, **changes):
    return parse_config({"state": "state", **changes}, {}, base=folder)


def fill(stores) -> None:
    stores.samples.add(A, "s", [b"marker a1", b"marker a2"])
    stores.samples.add(B, "s", [b"marker b1"])


def test_a_queue_with_its_keys_in_the_keyring_leaves_no_key_on_the_disk(tmp_path, memory_keyring):
    config = config_of(tmp_path, key_store="keyring")
    stores = open_stores(config)
    fill(stores)
    stores.database.close()
    assert [p.name for p in tmp_path.rglob("*.key")] == []
    assert {name for _, name in memory_keyring.kept} == {DEVICE, A.hex(), B.hex()}
    again = open_stores(config)
    (found,) = again.samples.waiting(B, 1, after=0, count_max=9)
    assert found.content == b"marker b1"
    again.database.close()


def test_each_campaign_is_sealed_with_a_key_of_its_own(tmp_path):
    stores = open_stores(config_of(tmp_path))
    fill(stores)
    sealed = dict(stores.database.read("SELECT campaign_id, content FROM sample WHERE id IN (1,3)"))
    candidate = stores.samples.candidate_id(B, b"marker b1")
    assert stores.seals.of(B).open(sealed[B], b"sample|" + candidate) == b"marker b1"
    for other in (stores.sealer, stores.seals.of(A)):
        with pytest.raises(SealBroken):
            other.open(sealed[B], b"sample|" + candidate)
    stores.database.close()


@pytest.mark.parametrize("damage", ["lost", "swapped"])
def test_a_campaigns_key_that_is_lost_or_another_stops_the_work_with_a_remedy(tmp_path, damage):
    stores = open_stores(config_of(tmp_path))
    fill(stores)
    stores.database.close()
    path = tmp_path / "state" / "queue.key.d" / f"{A.hex()}.key"
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink() if damage == "lost" else path.write_bytes(bytes(32))
    again = open_stores(config_of(tmp_path))
    with pytest.raises(StorageError, match="restore it from its backup"):
        again.samples.waiting(A, 1, after=0, count_max=9)
    with pytest.raises(StorageError, match="restore it from its backup"):
        again.samples.add(A, "s", [b"new"])
    assert len(again.samples.waiting(B, 1, after=0, count_max=9)) == 1
    again.database.close()


def test_shredding_ends_one_campaign_in_every_copy_and_leaves_the_other(tmp_path, capsys):
    config = config_of(tmp_path)
    stores = open_stores(config)
    fill(stores)
    stores.campaigns.record(
        [model_pb2.Campaign(campaign_id=i, name=n) for i, n in ((A, "one"), (B, "two"))]
    )
    stores.database.close()
    shutil.copytree(config.state_folder, tmp_path / "backup", ignore=lambda *_: ["queue.key.d"])
    path = tmp_path / "agent.toml"
    path.write_text('state = "state"\n')
    assert main(["shred", "one", "--config", str(path)]) == 1
    assert main(["shred", "nobody", "--yes", "--config", str(path)]) == 2
    assert main(["shred", "one", "--yes", "--config", str(path)]) == 0
    assert "2 samples removed" in capsys.readouterr().out
    (record,) = audit.records(config.state_folder)
    assert (record.action, record.subject) == ("campaign.shredded", A.hex())
    again = open_stores(config)
    assert again.samples.counts() == {B: {"open": 1}}
    assert len(again.samples.waiting(B, 1, after=0, count_max=9)) == 1
    again.samples.add(A, "s", [b"a new beginning"])
    again.database.close()
    # The copy of the old file, beside the keys that there are now: campaign one stays shut.
    backup = config_of(tmp_path, state="backup", key_file="state/queue.key")
    copy = open_stores(backup)
    with pytest.raises(StorageError):
        copy.samples.find(A, copy.samples.candidate_id(A, b"marker a1"))
    assert copy.samples.find(B, copy.samples.candidate_id(B, b"marker b1")) is not None
    copy.database.close()


def test_a_shredding_that_was_interrupted_is_finished_at_the_next_start(tmp_path, monkeypatch):
    stores = open_stores(config_of(tmp_path))
    fill(stores)
    with monkeypatch.context() as patch:
        patch.setattr(shredding, "finish", lambda *_: 0)
        shredding.shred(stores.database, stores.seals, stores.outbox, A)
    stores.seals.forget(A)
    stores.database.close()
    again = open_stores(config_of(tmp_path))
    assert again.samples.counts() == {B: {"open": 1}}
    again.samples.add(A, "s", [b"a new beginning"])
    again.database.close()


def old_queue(folder: Path, count: int) -> None:
    """A state folder as the version before left it: layout 1, one key for everything."""
    state = folder / "state"
    state.mkdir()
    sealer = Sealer(FileKeys(state / "queue.key").make(DEVICE))
    database = sqlite3.connect(state / "queue.db")
    database.executescript(f"{LAYOUT_1} PRAGMA user_version=1;")
    check = sealer.seal(b"perimeter", b"key-check")
    database.execute("INSERT INTO key_check VALUES (1, ?)", (check,))
    for number in range(count):
        campaign, content = (A, B)[number % 2], b"marker %d" % number
        candidate = sealer.keyed_id(b"candidate", campaign, content)
        view = sealer.seal(VIEW.pack(), b"view|" + candidate) if number % 3 else None
        score = sealer.seal(SCORE.pack(), b"score|" + candidate) if number % 5 else None
        database.execute(
            "INSERT INTO sample (campaign_id, candidate_id, source, content, view, score)"
            " VALUES (?, ?, 's', ?, ?, ?)",
            (campaign, candidate, sealer.seal(content, b"sample|" + candidate), view, score),
        )
    body = sealer.seal(b"a batch", b"outbox|" + A + (7).to_bytes(8, "little"))
    database.execute("INSERT INTO outbox VALUES (?, 7, 3, 5, ?, '')", (A, body))
    database.commit()
    database.close()


def check_whole(stores, count: int) -> None:
    assert stores.database.layout() == 2
    assert not stores.database.has_table("migration")
    for number in range(count):
        campaign, content = (A, B)[number % 2], b"marker %d" % number
        found = stores.samples.find(campaign, stores.samples.candidate_id(campaign, content))
        assert found.content == content
        assert found.view == (VIEW if number % 3 else None)
        offered = stores.samples.offered_score(found.candidate_id)
        assert offered == (SCORE if number % 5 else None)
    assert stores.outbox.waiting() == [SealedBatch(A, 7, b"a batch")]
    sealed = stores.database.read("SELECT content, candidate_id FROM sample")
    for content, candidate in sealed:
        with pytest.raises(SealBroken):
            stores.sealer.open(content, b"sample|" + candidate)


def test_a_queue_of_the_version_before_moves_to_keys_by_campaign(tmp_path, monkeypatch):
    monkeypatch.setattr(migration, "BATCH_ROWS", 7)
    old_queue(tmp_path, 30)
    stores = open_stores(config_of(tmp_path), clock=lambda: 5000.0)
    check_whole(stores, 30)
    assert set(stores.database.read("SELECT arrived_at FROM sample")) == {(5000.0,)}
    stores.database.close()
    again = open_stores(config_of(tmp_path))
    check_whole(again, 30)
    again.database.close()


def test_a_row_that_was_damaged_before_holds_up_nothing(tmp_path):
    old_queue(tmp_path, 3)
    with sqlite3.connect(tmp_path / "state" / "queue.db") as database:
        database.execute("UPDATE sample SET content = zeroblob(50) WHERE id = 1")
    stores = open_stores(config_of(tmp_path))
    assert [s.content for s in stores.samples.waiting(A, 1, after=0, count_max=9)] == [b"marker 2"]
    stores.database.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from edge_agent.config import parse_config
from edge_agent.queue import migration
from edge_agent.queue.database import Database
from edge_agent.queue.stores import open_stores

migration.BATCH_ROWS = 4
left = int(sys.argv[2])
write = Database.write

def counted(self, *arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, *arguments)

Database.write = counted
open_stores(parse_config({"state": "state"}, {}, base=Path(sys.argv[1])))
"""


def test_a_migration_that_is_killed_anywhere_loses_nothing(tmp_path):
    old_queue(tmp_path, 20)
    # Each kill comes a few writes further; those before went to the disk or never were.
    deaths = 0
    for writes in (0, 8, 9, 2, 3, 4):
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path), str(writes)],
            env=os.environ, capture_output=True, check=False, timeout=120,
        )  # fmt: skip
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr.decode()
        deaths += ended.returncode != 0
    assert deaths >= 4
    stores = open_stores(config_of(tmp_path))
    check_whole(stores, 20)
    stores.database.close()
