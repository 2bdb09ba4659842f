"""The ledger's rules under single cases, and under any sequence of events with crashes."""

from __future__ import annotations

import dataclasses
import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from coordinator.core.entries import (
    FINAL_STATES,
    Funded,
    Granted,
    GrantReason,
    GrantState,
    GrantTerms,
    Settled,
    Verdict,
    chain_digest,
    entry_from_json,
    entry_json,
)
from coordinator.core.ledger import GENESIS, Account, Ledger, OutcomeReport, violations
from coordinator.core.refusals import Reason, Refusal
from coordinator.errors import LedgerCorrupt, StoreUnavailable
from coordinator.memory_store import MemoryStore
from coordinator.office import load_ledger
from coordinator.store import open_store

CAMPAIGN = b"c" * 16
SITES = ("north", "south")


def terms(number: int, *, site: str = "north", candidate: int | None = None) -> GrantTerms:
    chosen = number if candidate is None else candidate
    return GrantTerms(
        grant_id=number.to_bytes(16, "big"),
        campaign_id=CAMPAIGN,
        candidate_id=chosen.to_bytes(16, "big"),
        site_id=site,
        agent_name="one",
        model_version=1,
        cycle=1,
        reason=GrantReason.USEFUL,
        expires_at=100,
    )


def funded(budget: int = 3, cap: int = 2, overlap: int = 1) -> Ledger:
    return Ledger([Funded(1, 0, CAMPAIGN, budget, cap, overlap)])


def grant(ledger: Ledger, *wanted: GrantTerms) -> None:
    entries = ledger.reserve(wanted, 0)
    assert not isinstance(entries, Refusal), entries
    for entry in entries:
        ledger.apply(entry)


def settle(ledger: Ledger, number: int, state: GrantState, site: str = "north") -> GrantState:
    done = ledger.settle(site, [OutcomeReport(number.to_bytes(16, "big"), state)], 0)
    assert not isinstance(done, Refusal)
    for entry in done.entries:
        ledger.apply(entry)
    (answer,) = done.states
    assert answer is not None
    return answer


def test_a_grant_reserves_and_a_label_spends():
    ledger = funded()
    grant(ledger, terms(1), terms(2))
    assert ledger.books(CAMPAIGN).total == Account(reserved=2)
    settle(ledger, 1, GrantState.LABELED)
    assert ledger.books(CAMPAIGN).total == Account(reserved=1, spent=1)


@pytest.mark.parametrize("state", sorted(FINAL_STATES - {GrantState.LABELED}))
def test_every_other_end_returns_the_label(state):
    ledger = funded()
    grant(ledger, terms(1))
    settle(ledger, 1, state)
    assert ledger.books(CAMPAIGN).total == Account(returned=1)
    assert ledger.books(CAMPAIGN).available == 3


def test_a_release_moves_no_label():
    ledger = funded()
    grant(ledger, terms(1))
    settle(ledger, 1, GrantState.RELEASED)
    assert ledger.books(CAMPAIGN).total == Account(reserved=1)


def test_the_budget_is_never_passed():
    ledger = funded(budget=1)
    refusal = ledger.reserve([terms(1), terms(2)], 0)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.BUDGET_EXHAUSTED


def test_the_cap_of_a_site_is_never_passed():
    ledger = funded(budget=9, cap=2)
    refusal = ledger.reserve([terms(1), terms(2), terms(3)], 0)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.SITE_BUDGET_EXHAUSTED
    grant(ledger, terms(1), terms(2), terms(3, site="south"))


def test_a_refused_reservation_grants_nothing():
    ledger = funded(budget=1)
    ledger.reserve([terms(1), terms(2)], 0)
    assert ledger.sequence == 1
    assert ledger.grants(CAMPAIGN) == []


def test_a_candidate_is_granted_twice_only_where_overlap_is_asked():
    plain = funded()
    grant(plain, terms(1, candidate=7))
    refusal = plain.reserve([terms(2, candidate=7)], 0)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.CANDIDATE_GRANTED
    double = funded(overlap=2)
    grant(double, terms(1, candidate=7), terms(2, candidate=7))


def test_a_candidate_whose_grant_expired_is_not_granted_again():
    ledger = funded()
    grant(ledger, terms(1, candidate=7))
    settle(ledger, 1, GrantState.EXPIRED)
    assert isinstance(ledger.reserve([terms(2, candidate=7)], 0), Refusal)


def test_the_first_final_state_stands():
    ledger = funded()
    grant(ledger, terms(1))
    settle(ledger, 1, GrantState.EXPIRED)
    assert settle(ledger, 1, GrantState.LABELED) is GrantState.EXPIRED
    assert ledger.books(CAMPAIGN).total == Account(returned=1)


def test_a_site_cannot_settle_for_another():
    ledger = funded()
    grant(ledger, terms(1))
    report = OutcomeReport((1).to_bytes(16, "big"), GrantState.LABELED)
    refusal = ledger.settle("south", [report], 0)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.GRANT_OF_OTHER_SITE


def test_expiry_waits_for_the_grace():
    ledger = funded()
    grant(ledger, terms(1))
    assert ledger.expire(100) == ()
    assert ledger.expire(105, grace_seconds=5) == ()
    (entry,) = ledger.expire(106, grace_seconds=5)
    assert entry.state is GrantState.EXPIRED


@pytest.mark.parametrize(
    "entry",
    [
        Granted(3, 0, terms(1)),
        Granted(2, 0, dataclasses.replace(terms(1), campaign_id=b"x" * 16)),
        Settled(2, 0, (9).to_bytes(16, "big"), GrantState.LABELED),
        Funded(2, 0, CAMPAIGN, 0, 0, 0),
    ],
    ids=["a gap", "no budget", "no grant", "a budget below what is taken"],
)
def test_entries_that_break_a_rule_are_corrupt(entry):
    ledger = funded()
    if isinstance(entry, Funded):
        grant(ledger, terms(1))
        entry = dataclasses.replace(entry, sequence=3)
    with pytest.raises(LedgerCorrupt):
        ledger.apply(entry)


def test_a_changed_entry_breaks_the_digest_chain():
    store = MemoryStore()
    first = Funded(1, 0, CAMPAIGN, 3, 2, 1)
    with store.transaction() as writer:
        digest = chain_digest(GENESIS, first)
        writer.append([dataclasses.replace(first, budget_labels=4)], [digest])
    with pytest.raises(LedgerCorrupt, match="changed"):
        load_ledger(store)


def test_entries_read_back_as_they_were_written():
    entries = [
        Funded(1, 0, CAMPAIGN, 3, 2, 1),
        Granted(2, 5, terms(1)),
        Settled(3, 6, bytes(16), GrantState.LABELED, Verdict.CORRECTED, 4, 17),
    ]
    assert [entry_from_json(entry_json(entry)) for entry in entries] == entries


def test_a_probability_below_a_millionth_keeps_its_digits():
    drawn = dataclasses.replace(terms(1), inclusion_trillionths=123_456)
    read = entry_from_json(entry_json(Granted(2, 5, drawn)))
    assert read.terms.inclusion_probability == 1.23456e-7


def test_entries_from_before_finer_probabilities_keep_their_bytes_and_their_meaning():
    older = dataclasses.replace(terms(1), inclusion_ppm=250)
    body = entry_json(Granted(2, 5, older))
    assert "inclusion_ppm" in body
    assert "inclusion_trillionths" not in body
    assert entry_json(entry_from_json(body)) == body
    assert entry_from_json(body).terms.inclusion_probability == 250e-6


class LedgerMachine(RuleBasedStateMachine):
    """Any mix of grants, reports, repeats, expiries, failed writes and restarts."""

    all_grants = Bundle("all_grants")

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.ledger = Ledger()
        self.now = 0
        self.number = 0
        self.final: dict[bytes, GrantState] = {}
        self.broken_disk = False

    def record(self, entries) -> bool:
        digest, digests = self.ledger.digest, []
        for entry in entries:
            digest = chain_digest(digest, entry)
            digests.append(digest)
        try:
            with self.store.transaction() as writer:
                writer.append(entries, digests)
                self.write_to_disk()
        except StoreUnavailable:
            self.broken_disk = False
            return False
        for entry in entries:
            self.ledger.apply(entry)
        return True

    def write_to_disk(self) -> None:
        if self.broken_disk:
            raise StoreUnavailable("the disk is full")

    @initialize(budget=st.integers(1, 12), cap=st.integers(1, 12), overlap=st.integers(1, 3))
    def fund(self, budget, cap, overlap):
        funding = Funded(0, 0, CAMPAIGN, budget, cap, overlap)
        self.record([self.ledger.fund(funding)])

    @rule(
        target=all_grants,
        sites=st.lists(st.sampled_from(SITES), min_size=1, max_size=4),
        candidate=st.integers(0, 5),
    )
    def ask_for_grants(self, sites, candidate):
        wanted = []
        for offset, site in enumerate(sites):
            self.number += 1
            made = terms(self.number, site=site, candidate=candidate + offset // 2)
            wanted.append(dataclasses.replace(made, expires_at=self.now + 10))
        entries = self.ledger.reserve(wanted, self.now)
        if isinstance(entries, Refusal) or not self.record(entries):
            return multiple()
        return multiple(*[(t.grant_id, t.site_id) for t in wanted])

    @rule(
        made=all_grants,
        states=st.lists(
            st.sampled_from(sorted(set(GrantState) - {GrantState.GRANTED})), min_size=1, max_size=3
        ),
    )
    def report(self, made, states):
        grant_id, site = made
        reports = [OutcomeReport(grant_id, state) for state in states]
        done = self.ledger.settle(site, reports, self.now)
        assert not isinstance(done, Refusal)
        if not self.record(done.entries):
            return
        answer = done.states[-1]
        if grant_id in self.final:
            assert answer is self.final[grant_id]
        if answer in FINAL_STATES:
            self.final[grant_id] = answer

    @rule(made=all_grants)
    def report_from_a_stranger(self, made):
        grant_id, site = made
        other = next(s for s in SITES if s != site)
        report = OutcomeReport(grant_id, GrantState.LABELED)
        assert isinstance(self.ledger.settle(other, [report], self.now), Refusal)

    @rule(made=consumes(all_grants))
    def forget(self, made):
        """A machine that never answers: its grant must end by expiry alone."""

    @rule(seconds=st.integers(1, 15))
    def pass_time(self, seconds):
        self.now += seconds
        expired = self.ledger.expire(self.now)
        if self.record(expired):
            for entry in expired:
                assert entry.grant_id not in self.final
                self.final[entry.grant_id] = GrantState.EXPIRED

    @rule()
    def fail_the_next_write(self):
        self.broken_disk = True

    @rule()
    def crash_and_reopen(self):
        before = self.ledger
        self.ledger = load_ledger(self.store)
        assert self.ledger.digest == before.digest
        assert self.ledger.books(CAMPAIGN) == before.books(CAMPAIGN)

    @invariant()
    def every_rule_holds(self):
        if self.ledger.knows(CAMPAIGN):
            assert violations(self.ledger, CAMPAIGN) == []

    @invariant()
    def final_states_never_change(self):
        for grant_id, state in self.final.items():
            record = self.ledger.grant(grant_id)
            assert record is not None
            assert record.state is state

    def teardown(self):
        """After faults stop, every grant ends."""
        self.broken_disk = False
        self.record(self.ledger.expire(self.now + 1_000))
        if self.ledger.knows(CAMPAIGN):
            assert self.ledger.open_grants() == []
            assert self.ledger.books(CAMPAIGN).total.reserved == 0


class DurableLedgerMachine(LedgerMachine):
    """The same on SQLite: a crash drops every connection and opens the file anew."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.url = f"sqlite:///{self.folder.name}/coordinator.db"
        self.store = open_store(self.url)

    @rule()
    def lose_the_process(self):
        self.store.close()
        self.store = open_store(self.url)
        self.crash_and_reopen()

    def teardown(self):
        super().teardown()
        assert self.store.check() == []
        self.store.close()
        self.folder.cleanup()


TestDurableLedgerMachine = DurableLedgerMachine.TestCase
TestDurableLedgerMachine.settings = settings(max_examples=6, stateful_step_count=25, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
