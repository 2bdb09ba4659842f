"""The budget as a ledger: entries in, accounts and grants out.

Rules kept at every entry: spent + reserved never pass the budget of the campaign nor the cap of a
site; a grant ends in exactly one final state, once; a candidate is granted again only where the
campaign asks for overlap. `reserve`, `settle` and `expire` decide and change nothing; `apply`
records one entry and refuses any that breaks a rule, so that replaying stored entries proves them.
Storing entries and telling the time are not done here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from coordinator.core.entries import (
    FINAL_STATES,
    Entry,
    Funded,
    Granted,
    GrantState,
    GrantTerms,
    Restored,
    Settled,
    Verdict,
    chain_digest,
)
from coordinator.core.refusals import Reason, Refusal
from coordinator.errors import LedgerCorrupt

GENESIS = b"\0" * 32


@dataclass(frozen=True)
class Account:
    """Labels of one campaign or of one site inside it; all counts are in labels."""

    reserved: int = 0
    spent: int = 0
    returned: int = 0

    @property
    def taken(self) -> int:
        """Labels that no other grant may use: reserved plus spent."""
        return self.reserved + self.spent


@dataclass(frozen=True)
class GrantRecord:
    """A grant as it stands: its terms, its state and where in the ledger both were written."""

    terms: GrantTerms
    state: GrantState
    granted_sequence: int
    state_sequence: int
    verdict: Verdict = Verdict.UNKNOWN
    class_index_plus_one: int = 0
    decision_seconds: int = 0

    @property
    def is_final(self) -> bool:
        """Whether no further state may follow."""
        return self.state in FINAL_STATES


@dataclass
class CampaignBooks:
    """All accounts of one campaign."""

    funding: Funded
    total: Account = field(default_factory=Account)
    sites: dict[str, Account] = field(default_factory=dict)
    grant_ids: list[bytes] = field(default_factory=list)
    times_granted: dict[bytes, int] = field(default_factory=dict)
    written_off: int = 0

    def site(self, site_id: str) -> Account:
        """Returns the account of a site, empty when nothing was granted there."""
        return self.sites.get(site_id, Account())

    @property
    def available(self) -> int:
        """Labels that may still be granted."""
        return max(0, self.funding.budget_labels - self.total.taken - self.written_off)


@dataclass(frozen=True)
class OutcomeReport:
    """One reported outcome.

    Attributes:
        grant_id: 16 bytes.
        state: Any but GRANTED.
        verdict: Whether the expert kept the suggested class.
        class_index_plus_one: 0 when unknown or withheld.
        decision_seconds: 0 to 3600.
    """

    grant_id: bytes
    state: GrantState
    verdict: Verdict = Verdict.UNKNOWN
    class_index_plus_one: int = 0
    decision_seconds: int = 0

    def entry(self, sequence: int, now: int) -> Settled:
        """Returns the ledger entry for this outcome at a position."""
        return Settled(sequence=sequence, at=now, **vars(self))


@dataclass(frozen=True)
class Settlement:
    """What `Ledger.settle` decided: entries to record, and a state for each report."""

    entries: tuple[Settled, ...]
    states: tuple[GrantState | None, ...]


class Ledger:
    """All grants of all campaigns, rebuilt from entries.

    >>> ledger = Ledger()
    >>> ledger.apply(Funded(1, 0, b"c" * 16, budget_labels=1, site_cap_labels=1, overlap_count=1))
    >>> ledger.books(b"c" * 16).available
    1
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._books: dict[bytes, CampaignBooks] = {}
        self._grants: dict[bytes, GrantRecord] = {}
        self._open: dict[bytes, None] = {}
        self._open_by_agent: dict[tuple[str, str], dict[bytes, None]] = {}
        self.sequence = 0
        self.digest = GENESIS
        for entry in entries:
            self.apply(entry)

    def knows(self, campaign_id: bytes) -> bool:
        """Whether the campaign was ever funded."""
        return campaign_id in self._books

    def campaign_ids(self) -> list[bytes]:
        """Returns the funded campaigns, in the order they were funded."""
        return list(self._books)

    def books(self, campaign_id: bytes) -> CampaignBooks:
        """Returns the accounts of a funded campaign; treat them as read-only."""
        return self._books[campaign_id]

    def grant(self, grant_id: bytes) -> GrantRecord | None:
        """Returns a grant as it stands."""
        return self._grants.get(grant_id)

    def grants(self, campaign_id: bytes) -> list[GrantRecord]:
        """Returns all grants of a campaign in the order they were made."""
        books = self._books.get(campaign_id)
        return [self._grants[grant_id] for grant_id in books.grant_ids] if books else []

    def open_grants(self) -> list[GrantRecord]:
        """Returns the grants that have no final state yet, oldest first."""
        return [self._grants[grant_id] for grant_id in self._open]

    def open_grants_of(self, site_id: str, agent_name: str) -> list[GrantRecord]:
        """Returns the grants of one agent that have no final state yet, oldest first."""
        return [self._grants[i] for i in self._open_by_agent.get((site_id, agent_name), ())]

    # Deciding: nothing below changes the ledger.

    def fund(self, funding: Funded) -> Funded:
        """Returns the entry that sets or raises a campaign's budget, at the next position."""
        return replace(funding, sequence=self.sequence + 1)

    def reserve(self, terms: Sequence[GrantTerms], now: int) -> tuple[Granted, ...] | Refusal:
        """Decides whether all of `terms` may be granted together.

        Args:
            terms: Grants wanted, all of one funded campaign.
            now: Seconds since 1970-01-01 UTC.

        Returns:
            One entry for each of `terms`, or a refusal that grants nothing.
        """
        if not terms:
            return ()
        books = self._books.get(terms[0].campaign_id)
        if books is None:
            return Refusal(Reason.CAMPAIGN_UNKNOWN, "the campaign has no budget yet")
        return self._check_limits(books, terms) or tuple(
            Granted(self.sequence + 1 + i, now, wanted) for i, wanted in enumerate(terms)
        )

    def settle(
        self, site_id: str, reports: Sequence[OutcomeReport], now: int
    ) -> Settlement | Refusal:
        """Decides what reported outcomes do, one after the other.

        Args:
            site_id: Site of the caller, from its certificate.
            reports: Outcomes; one grant may appear twice (released, then labeled).
            now: Seconds since 1970-01-01 UTC.

        Returns:
            Entries to record and each grant's state after its report: the first final state stands,
            whatever comes later, and None marks an unknown grant. A refusal of all when one grant
            belongs to another site.
        """
        entries: list[Settled] = []
        states: list[GrantState | None] = []
        latest: dict[bytes, GrantState] = {}
        for report in reports:
            record = self._grants.get(report.grant_id)
            if record is None:
                states.append(None)
                continue
            if record.terms.site_id != site_id:
                return Refusal(Reason.GRANT_OF_OTHER_SITE, "the grant belongs to another site")
            state = latest.get(report.grant_id, record.state)
            if state not in FINAL_STATES and state != report.state:
                entries.append(report.entry(self.sequence + 1 + len(entries), now))
                state = report.state
            latest[report.grant_id] = state
            states.append(state)
        return Settlement(tuple(entries), tuple(states))

    def expire(self, now: int, grace_seconds: int = 0) -> tuple[Settled, ...]:
        """Returns the entries that end all grants whose time is over by more than the grace."""
        late = [r for r in self.open_grants() if r.terms.expires_at + grace_seconds < now]
        return tuple(
            Settled(self.sequence + 1 + i, now, record.terms.grant_id, GrantState.EXPIRED)
            for i, record in enumerate(late)
        )

    def _check_limits(self, books: CampaignBooks, terms: Sequence[GrantTerms]) -> Refusal | None:
        if len(terms) > books.available:
            return Refusal(
                Reason.BUDGET_EXHAUSTED,
                f"{len(terms)} labels asked for, {books.available} left in the budget",
            )
        by_site: dict[str, int] = {}
        times = dict[bytes, int]()
        for wanted in terms:
            by_site[wanted.site_id] = by_site.get(wanted.site_id, 0) + 1
            times[wanted.candidate_id] = times.get(wanted.candidate_id, 0) + 1
        for site_id, count in by_site.items():
            if books.site(site_id).taken + count > books.funding.site_cap_labels:
                return Refusal(
                    Reason.SITE_BUDGET_EXHAUSTED, f"site {site_id} would pass its share cap"
                )
        for candidate_id, count in times.items():
            if books.times_granted.get(candidate_id, 0) + count > books.funding.overlap_count:
                return Refusal(
                    Reason.CANDIDATE_GRANTED, "a candidate was granted before; overlap is not asked"
                )
        return None

    # Recording.

    def apply(self, entry: Entry) -> None:
        """Records one entry.

        Raises:
            LedgerCorrupt: The entry breaks a rule; the ledger is unchanged.
        """
        gap_is_known = isinstance(entry, Restored) and entry.sequence > self.sequence
        if entry.sequence != self.sequence + 1 and not gap_is_known:
            raise LedgerCorrupt(entry.sequence, f"expected position {self.sequence + 1}")
        if isinstance(entry, Funded):
            self._apply_funded(entry)
        elif isinstance(entry, Restored):
            self._apply_restored(entry)
        elif isinstance(entry, Granted):
            self._apply_granted(entry)
        else:
            self._apply_settled(entry)
        self.sequence = entry.sequence
        self.digest = chain_digest(self.digest, entry)

    def _apply_funded(self, entry: Funded) -> None:
        books = self._books.get(entry.campaign_id)
        if books is None:
            self._books[entry.campaign_id] = CampaignBooks(entry)
            return
        highest_site = max((account.taken for account in books.sites.values()), default=0)
        too_low = entry.budget_labels < books.total.taken or entry.site_cap_labels < highest_site
        if too_low or entry.overlap_count < max(books.times_granted.values(), default=0):
            raise LedgerCorrupt(entry.sequence, "a budget below what is already taken")
        books.funding = entry

    def _apply_restored(self, entry: Restored) -> None:
        books = self._books.get(entry.campaign_id)
        if books is None or entry.lost_label_count < 1:
            raise LedgerCorrupt(entry.sequence, "a restore that lost nothing")
        books.written_off += entry.lost_label_count

    def _apply_granted(self, entry: Granted) -> None:
        terms = entry.terms
        books = self._books.get(terms.campaign_id)
        if books is None:
            raise LedgerCorrupt(entry.sequence, "a grant in a campaign without a budget")
        if terms.grant_id in self._grants:
            raise LedgerCorrupt(entry.sequence, "a grant id is used twice")
        refusal = self._check_limits(books, [terms])
        if refusal is not None:
            raise LedgerCorrupt(entry.sequence, refusal.sentence)
        self._grants[terms.grant_id] = GrantRecord(
            terms, GrantState.GRANTED, entry.sequence, entry.sequence
        )
        self._open[terms.grant_id] = None
        agent = (terms.site_id, terms.agent_name)
        self._open_by_agent.setdefault(agent, {})[terms.grant_id] = None
        books.grant_ids.append(terms.grant_id)
        books.times_granted[terms.candidate_id] = books.times_granted.get(terms.candidate_id, 0) + 1
        self._move(books, terms.site_id, Account(reserved=1))

    def _apply_settled(self, entry: Settled) -> None:
        record = self._grants.get(entry.grant_id)
        if record is None:
            raise LedgerCorrupt(entry.sequence, "an outcome of a grant that was never made")
        if record.is_final or entry.state in {GrantState.GRANTED, record.state}:
            raise LedgerCorrupt(entry.sequence, f"a grant cannot go {record.state} → {entry.state}")
        self._grants[entry.grant_id] = replace(
            record,
            state=entry.state,
            state_sequence=entry.sequence,
            verdict=entry.verdict,
            class_index_plus_one=entry.class_index_plus_one,
            decision_seconds=entry.decision_seconds,
        )
        if entry.state in FINAL_STATES:
            del self._open[entry.grant_id]
            agent = (record.terms.site_id, record.terms.agent_name)
            del self._open_by_agent[agent][entry.grant_id]
            labeled = int(entry.state is GrantState.LABELED)
            change = Account(reserved=-1, spent=labeled, returned=1 - labeled)
            self._move(self._books[record.terms.campaign_id], record.terms.site_id, change)

    @staticmethod
    def _move(books: CampaignBooks, site_id: str, change: Account) -> None:
        books.total = _plus(books.total, change)
        books.sites[site_id] = _plus(books.site(site_id), change)


def _plus(account: Account, change: Account) -> Account:
    return Account(
        account.reserved + change.reserved,
        account.spent + change.spent,
        account.returned + change.returned,
    )


def violations(ledger: Ledger, campaign_id: bytes) -> list[str]:
    """Recounts a campaign from its grants and names every rule that does not hold.

    The recount shares no counter with `Ledger.apply`, so that a mistake there shows here.
    """
    books = ledger.books(campaign_id)
    grants = ledger.grants(campaign_id)
    found: list[str] = []
    spent = sum(g.state is GrantState.LABELED for g in grants)
    reserved = sum(not g.is_final for g in grants)
    if books.total != Account(reserved, spent, len(grants) - spent - reserved):
        found.append("the accounts differ from a recount of the grants")
    if spent + reserved > books.funding.budget_labels:
        found.append("spent + reserved passes the budget")
    times: dict[bytes, int] = {}
    taken: dict[str, int] = {}
    for grant in grants:
        times[grant.terms.candidate_id] = times.get(grant.terms.candidate_id, 0) + 1
        counts = not grant.is_final or grant.state is GrantState.LABELED
        taken[grant.terms.site_id] = taken.get(grant.terms.site_id, 0) + counts
    if max(times.values(), default=0) > books.funding.overlap_count:
        found.append("a candidate was granted more often than overlap allows")
    if max(taken.values(), default=0) > books.funding.site_cap_labels:
        found.append("a site passes its share cap")
    return found
