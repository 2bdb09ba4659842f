"""What a campaign in histogram mode has cost, and the noised releases that were made.

A release is charged before its noise is drawn, and kept before it is sent: a crash can only cost
more than it should, and a repeat sends the same bytes. The cost stands in two files, one in the
state folder and one beside it; the higher one counts, so that a state folder that was put back from
a backup gets nothing refunded.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_agent.errors import StorageError
from edge_agent.identity import write_durably


@dataclass(frozen=True)
class PrivacyAccount:
    """What one campaign may cost and has cost on this device, in 1/1000 of epsilon.

    Attributes:
        limit_milli: Most that may ever be spent: the lowest limit that the campaign ever had.
        spent_milli: Spent so far; releases about the same samples add up.
        release_count: Releases charged.
    """

    limit_milli: int
    spent_milli: int = 0
    release_count: int = 0

    def charged(self, epsilon_milli: int) -> PrivacyAccount | None:
        """Returns the account after one more release, or None when the limit would be passed.

        >>> PrivacyAccount(1000).charged(600).charged(600) is None
        True
        """
        spent = self.spent_milli + epsilon_milli
        if epsilon_milli < 1 or spent > self.limit_milli:
            return None
        return PrivacyAccount(self.limit_milli, spent, self.release_count + 1)


class PrivacyBook:
    """Accounts and releases of all campaigns of a device.

    Args:
        state_folder: The device's state folder. The second file lies beside it.
    """

    def __init__(self, state_folder: Path) -> None:
        self._folder = state_folder / "privacy"
        self._mark = state_folder.with_name(f"{state_folder.name}.privacy-high-water.json")

    def account(self, campaign_id: bytes) -> PrivacyAccount | None:
        """Returns the account of a campaign, None when it was never in histogram mode here.

        Raises:
            StorageError: A file is damaged; nothing may be released on a guess.
        """
        found = [
            accounts[campaign_id.hex()]
            for accounts in (_read(self._folder / "accounts.json"), _read(self._mark))
            if campaign_id.hex() in accounts
        ]
        if not found:
            return None
        return PrivacyAccount(
            limit_milli=min(entry.limit_milli for entry in found),
            spent_milli=max(entry.spent_milli for entry in found),
            release_count=max(entry.release_count for entry in found),
        )

    def open(self, campaign_id: bytes, limit_milli: int) -> PrivacyAccount:
        """Notes that a campaign is in histogram mode and returns its account.

        A limit can only go down: nobody raises it from afar.
        """
        known = self.account(campaign_id)
        if known is None:
            known = PrivacyAccount(limit_milli)
        elif limit_milli >= known.limit_milli:
            return known
        else:
            known = PrivacyAccount(limit_milli, known.spent_milli, known.release_count)
        self._store(campaign_id, known)
        return known

    def charge(self, campaign_id: bytes, epsilon_milli: int) -> bool:
        """Charges a release, durably; False when the limit forbids it for good."""
        known = self.account(campaign_id)
        charged = known.charged(epsilon_milli) if known else None
        if charged is None:
            return False
        self._store(campaign_id, charged)
        return True

    def keep(self, campaign_id: bytes, version: int, message: bytes) -> None:
        """Keeps a release, durably, before it is sent."""
        write_durably(self._release_path(campaign_id, version), message, mode=0o600)

    def release(self, campaign_id: bytes, version: int) -> bytes | None:
        """Returns the release of a model version, None when there is none yet."""
        path = self._release_path(campaign_id, version)
        return path.read_bytes() if path.exists() else None

    def _release_path(self, campaign_id: bytes, version: int) -> Path:
        return self._folder / f"{campaign_id.hex()}-{version}.release"

    def _store(self, campaign_id: bytes, account: PrivacyAccount) -> None:
        for path in (self._mark, self._folder / "accounts.json"):
            accounts = {name: asdict(entry) for name, entry in _read(path).items()}
            accounts[campaign_id.hex()] = asdict(account)
            write_durably(path, json.dumps(accounts, sort_keys=True).encode(), mode=0o600)


def _read(path: Path) -> dict[str, PrivacyAccount]:
    try:
        values = json.loads(path.read_bytes())
        return {name: PrivacyAccount(**entry) for name, entry in values.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StorageError(
            f"{path} is damaged ({error}); put it back from a backup of the same day. "
            "Nothing is released until it can be read"
        ) from None
