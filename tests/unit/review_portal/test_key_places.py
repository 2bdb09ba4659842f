"""Keys of a label store in files or in the operating system's keyring: one contract."""

from __future__ import annotations

import sys

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail, null
from keyring.errors import KeyringLocked, PasswordDeleteError
from portal_bench import CAMPAIGN_ID, Bench, Clock

from review_portal.__main__ import main
from review_portal.errors import ConfigInvalid, KeyMissing, KeysUnusable
from review_portal.label_store import LabelStore
from review_portal.store.key_places import MARK, KeyFiles, KeyringEntries, choose, place_of

A, B = b"a" * 16, b"b" * 16


class MemoryKeyring(KeyringBackend):
    """Keeps passwords in this process, as the package means its backends to be."""

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
def place(request, tmp_path, memory_keyring):
    return KeyFiles(tmp_path) if request.param == "file" else KeyringEntries("perimeter-portal x")


def test_every_place_makes_a_key_once_and_destroys_it_alone(place) -> None:
    assert place.read(A) is None
    assert place.delete(A) is False
    place.make(A)
    place.make(B)
    kept = place.read(A)
    assert kept is not None
    assert len(kept) == 32
    place.make(A)
    assert place.read(A) == kept
    assert place.delete(B) is True
    assert (place.read(A), place.read(B)) == (kept, None)
    assert A.hex() in place.name(A)


def test_a_store_with_its_keys_in_the_keyring_has_none_on_the_disk(tmp_path, memory_keyring):
    folder = tmp_path / "portal"
    choose(folder / "keys", "keyring")
    with LabelStore.open(folder) as store:
        Bench(store, Clock()).fill(2)
    assert list(folder.rglob("*.key")) == []
    assert len(memory_keyring.kept) >= 1
    # Another process, such as the site's trainer, is told nothing and finds them all the same.
    with LabelStore.open(folder, read_only=True) as store:
        found = list(store.unlabeled(CAMPAIGN_ID, 9))
        assert len(found) == 2
        memory_keyring.is_locked = True
    with LabelStore.open(folder, read_only=True) as store:
        # Locked is not gone: nothing may take the content for deleted.
        with pytest.raises(KeysUnusable, match="unlock it"):
            list(store.unlabeled(CAMPAIGN_ID, 9))
        memory_keyring.is_locked = False
        assert store.keys.shred(CAMPAIGN_ID)
        with pytest.raises(KeyMissing):
            list(store.unlabeled(CAMPAIGN_ID, 9))


def test_the_place_is_settled_once_and_keys_are_not_left_behind(tmp_path, memory_keyring, capsys):
    KeyFiles(tmp_path / "files").make(A)
    with pytest.raises(ConfigInvalid, match="keys are not moved"):
        choose(tmp_path / "files", "keyring")
    assert isinstance(place_of(tmp_path / "files"), KeyFiles)
    config = tmp_path / "portal.toml"
    config.write_text('folder = "portal"\nkey_store = "keyring"\n')
    assert main(["init", "--config", str(config)]) == 0
    assert (tmp_path / "portal" / "keys" / MARK).exists()
    config.write_text('folder = "portal"\n')
    assert main(["init", "--config", str(config)]) == 1
    assert 'key_store = "file"' in capsys.readouterr().err


@pytest.mark.parametrize("backend", [null.Keyring(), fail.Keyring()])
def test_a_keyring_that_keeps_nothing_is_refused(tmp_path, memory_keyring, backend) -> None:
    keyring.set_keyring(backend)
    with pytest.raises(KeysUnusable, match="no keyring"):
        choose(tmp_path / "keys", "keyring")
    assert not (tmp_path / "keys" / MARK).exists()


def test_a_missing_package_a_damaged_entry_and_a_forgetful_keyring_are_told(
    memory_keyring, monkeypatch
) -> None:
    place = KeyringEntries("perimeter-portal x")
    place.make(A)
    memory_keyring.kept = dict.fromkeys(memory_keyring.kept, "no key")
    with pytest.raises(KeysUnusable, match="damaged"):
        place.read(A)
    memory_keyring.kept, memory_keyring.forgets = {}, True
    with pytest.raises(KeysUnusable, match="was not kept"):
        place.make(A)
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(KeysUnusable, match=r"pip install 'perimeter\[keyring\]'"):
        KeyringEntries("perimeter-portal x")
