"""Hidden checks, adjudication, look-alikes, quality numbers, the site lead's decisions."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import given, settings
from hypothesis import strategies as st
from portal_bench import CAMPAIGN_ID, Bench, Clock, fresh_token, new_campaign, new_item
from sqlalchemy import select
from test_label_store import decide, examples, labels, lease, outcomes, undo

from model_bundle.label_schema import LabelSchema
from review_portal.core.calibration import SettledSuggestion, reliability_bins
from review_portal.core.checks import CheckRecord, CheckShares, disguise, plan_checks
from review_portal.core.confidence import calibrated
from review_portal.core.model import Answer, Decision, NewItem, Role
from review_portal.hints import Hints
from review_portal.label_store import LabelStore
from review_portal.quality_reports import QualityReports
from review_portal.store import (
    adjudicating,
    annotations,
    bulk,
    outbox,
    people,
    quality,
    queue,
    site_totals,
    site_view,
)  # fmt: skip
from review_portal.store.campaigns import NewCampaign
from review_portal.store.tables import item, slot


def adjudicate(bench, expert_id: int, made: NewItem, class_index: int | None, note: str = "why"):
    desk = annotations.Desk(expert_id, bench.clock(), bench.store.keys)
    decision = Decision(made.item_id, Answer(class_index), 1.0, fresh_token(), note=note)
    return bench.store.database.write(lambda c: adjudicating.adjudicate(c, desk, decision))


def dispute(bench) -> NewItem:
    bench.set(double_ratio=1.0)
    made = bench.fill(1)[0]
    for expert, answer in ((1, 0), (2, 1)):
        lease(bench, expert)
        decide(bench, expert, made.item_id, answer)
    return made


def mark_gold(bench, count: int) -> None:
    """Settles the first items by expert 99 and lets them check others."""
    for entry in lease(bench, 99, count):
        decide(bench, 99, entry.item_id, 0)
    bench.store.database.write(
        lambda c: (
            c.execute(item.update().where(item.c.state == "LABELED").values(is_gold=True)) and None
        )
    )


def purposes(bench, expert_id: int) -> list[str]:
    return bench.store.database.read(
        lambda c: (
            c.execute(
                select(slot.c.purpose).where(slot.c.expert_id == expert_id).order_by(slot.c.slot_id)
            )
            .scalars()
            .all()
        )
    )


def test_an_adjudicator_ends_a_dispute_and_all_answers_stay(bench) -> None:
    made = dispute(bench)
    receipt = adjudicate(bench, 3, made, 1)
    assert receipt.item_state == "LABELED"
    assert labels(bench)[0].settlement == "adjudication"
    assert [e.class_index for e in examples(bench)] == [1]
    assert outcomes(bench)[-1][0] == "LABELED"
    count = bench.store.database.read(
        lambda c: c.exec_driver_sql("SELECT count(*) FROM annotation").scalar_one()
    )
    assert count == 3


def test_nobody_adjudicates_their_own_answer_or_without_a_reason(bench) -> None:
    made = dispute(bench)
    assert adjudicate(bench, 1, made, 1).reason == "OWN_ANSWER"
    assert adjudicate(bench, 3, made, 1, note=" ").reason == "NOTE_MISSING"
    assert adjudicate(bench, 3, made, 9).reason == "CLASS_UNKNOWN"
    assert adjudicate(bench, 3, made, 1).stored == "stored"
    assert adjudicate(bench, 4, made, 2).reason == "NOT_DISPUTED"


def test_a_dispute_that_nobody_can_settle_gives_the_budget_back(bench) -> None:
    made = dispute(bench)
    assert adjudicate(bench, 3, made, None).item_state == "ABSTAINED"
    assert outcomes(bench)[-1][0] == "ABSTAINED"
    assert examples(bench) == []


def test_an_adjudicated_item_may_check_others(bench) -> None:
    made = dispute(bench)
    adjudicate(bench, 3, made, 1)
    gold = bench.store.database.read(
        lambda c: c.execute(select(item.c.is_gold).where(item.c.item_id == made.item_id)).scalar()
    )
    assert gold


def test_the_adjudicator_sees_answers_without_names(bench) -> None:
    dispute(bench)
    found = bench.store.database.write(
        lambda c: adjudicating.disputes(c, CAMPAIGN_ID, 3, now=bench.clock())
    )
    assert [(a.letter, a.answer_key) for a in found[0].answers] == [("A", "0"), ("B", "1")]
    assert not found[0].is_own


def test_the_first_five_items_of_a_new_expert_are_gold(bench) -> None:
    bench.fill(40)
    mark_gold(bench, 10)
    bench.set(gold_first_count=5, gold_ratio=0.05)
    first = lease(bench, 1, 8)
    golden = set(
        bench.store.database.read(
            lambda c: c.execute(select(item.c.item_id).where(item.c.is_gold)).scalars().all()
        )
    )
    assert [entry.item_id in golden for entry in first] == [True] * 5 + [False] * 3


def test_gold_answers_make_no_label_and_spend_no_budget(bench) -> None:
    bench.fill(20)
    mark_gold(bench, 5)
    bench.set(gold_first_count=5)
    before, sent = len(labels(bench)), len(outcomes(bench))
    for entry in lease(bench, 1, 5):
        assert decide(bench, 1, entry.item_id, 2).stored == "stored"
    assert len(labels(bench)) == before
    assert len(outcomes(bench)) == sent
    assert {e.class_index for e in examples(bench)} == {0}


def test_one_expert_sees_one_gold_item_three_times_at_most(bench) -> None:
    bench.fill(3)
    mark_gold(bench, 2)
    bench.set(gold_first_count=50)
    seen = 0
    for _ in range(20):
        for entry in lease(bench, 1, 3):
            decide(bench, 1, entry.item_id, 0)
            seen += 1
    assert purposes(bench, 1).count("gold") == 6


def test_shares_of_gold_and_repeats_are_met_to_within_a_point() -> None:
    shares = CheckShares(0.05, 5, 0.05)
    work = gold = repeat = 0
    while work + gold + repeat < 1000:
        golds, repeats = plan_checks(CheckRecord(work, gold, repeat), shares, 10)
        gold, repeat, work = gold + golds, repeat + repeats, work + 10 - golds - repeats
    total = work + gold + repeat
    assert abs(gold / total - 0.05) <= 0.01
    assert abs(repeat / total - 0.05) <= 0.01


def test_own_items_come_again_after_a_day_and_fifty_others(bench) -> None:
    bench.fill(130)
    bench.set(repeat_ratio=0.1)
    for _ in range(3):
        for entry in lease(bench, 1, 20):
            decide(bench, 1, entry.item_id, 0)
    assert "repeat" not in purposes(bench, 1)
    bench.clock.now += 25 * 3600
    repeated = 0
    for entry in lease(bench, 1, 40):
        decide(bench, 1, entry.item_id, 1)
        repeated += 1
    assert repeated == 40
    assert purposes(bench, 1).count("repeat") >= 3
    campaign = bench.store.campaign("tickets")
    found = bench.store.database.read(lambda c: quality.report(c, campaign))
    assert found.consistency.value == 0.0
    # The second answer is a measurement; the label stays.
    assert sum(e.class_index == 0 for e in examples(bench)) == 60


@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=8), st.integers(0, 7), st.integers())
@settings(max_examples=100, deadline=None)
def test_a_disguise_keeps_the_shape_of_the_probabilities(weights, place: int, seed: int) -> None:
    values = [w / sum(weights) for w in weights]
    made = disguise(values, place % len(values), random.Random(seed))
    assert sorted(made) == sorted(values)


def test_imported_gold_looks_like_the_items_around_it(bench) -> None:
    bench.fill(10)
    from review_portal.store.bulk_import import ImportedItem
    from review_portal.store.campaigns import settings_of
    from review_portal.store.items import Intake

    campaign = bench.store.campaign("tickets")
    known = bench.store.database.read(lambda c: settings_of(c, CAMPAIGN_ID))
    gold = new_item(90, grant=None, probabilities=())
    intake = Intake(campaign, known, bench.store.keys, bench.clock())
    bench.store.import_items(intake, [ImportedItem(gold, "1", is_gold=True)])
    bench.set(gold_first_count=1)
    found = {entry.item_id: entry for entry in lease(bench, 1, 5)}
    shown = found[gold.item_id]
    assert len(shown.probabilities) == 12
    assert shown.suggestion_index is not None
    assert (shown.reason, shown.model_version) == ("useful", 1)


def test_the_report_measures_agreement_gold_and_calibration(bench) -> None:
    for name in ("ada", "eve"):
        new = people.NewPerson(name, name, Role.EXPERT, "x")
        bench.store.database.write(lambda c, new=new: people.add_person(c, new, 0.0))
    bench.set(double_ratio=1.0)
    made = bench.fill(20)
    for expert in (1, 2):
        lease(bench, expert)
        for place, entry in enumerate(made):
            wrong = expert == 2 and place < 4
            decide(bench, expert, entry.item_id, 1 if wrong else place % 2 * 2)
    campaign = bench.store.campaign("tickets")
    found = bench.store.database.read(lambda c: quality.report(c, campaign))
    assert 0.5 < found.alpha.value < 0.9
    assert found.pairs[0].first_expert == "ada"
    assert [entry.decision_count for entry in found.experts] == [20, 20]
    assert found.calibrations[0].suggestion_count == 16
    assert found.calibrations[0].accuracy.value == 0.5


def test_shown_confidence_follows_what_happened_here(bench) -> None:
    bins = reliability_bins([SettledSuggestion(0.95, n % 2 == 0) for n in range(100)])
    assert 0.5 < calibrated(0.95, bins) < 0.56
    assert calibrated(0.2, bins) == 0.2
    made = bench.fill(20)
    lease(bench, 1)
    for entry in made:
        decide(bench, 1, entry.item_id, 1)
    campaign = bench.store.campaign("tickets")
    hints = Hints(bench.store, bench.clock, QualityReports(bench.store.database))
    hints._learned[CAMPAIGN_ID] = hints.learn(campaign)
    assert hints.confidence(campaign, 1, 0.7) < 0.3
    assert hints.confidence(campaign, 2, 0.7) == 0.7


def test_typical_words_come_from_the_labels_of_this_site(bench) -> None:
    words = ("the card is lost", "the loan is late")
    made = [new_item(n, content=words[n % 2].encode()) for n in range(40)]
    bench.receive(*made)
    lease(bench, 1, 40)
    for place, entry in enumerate(made):
        decide(bench, 1, entry.item_id, place % 2)
    campaign = bench.store.campaign("tickets")
    hints = Hints(bench.store, bench.clock, QualityReports(bench.store.database))
    text = "is my card lost?"
    hints._learned[CAMPAIGN_ID] = hints.learn(campaign)
    assert [text[s:e] for s, e in hints.evidence(campaign, text, 0)] == ["card", "lost"]
    assert hints.evidence(campaign, text, 1) == []


def test_look_alikes_are_grouped_by_look_and_suggestion(bench) -> None:
    text = "please change my address to number {} in the same street as before, thank you"
    alike = [new_item(n, content=text.format(n).encode()) for n in range(6)]
    other = new_item(9, content=text.format(9).encode(), probabilities=(0.1, 0.2, 0.7))
    bench.receive(*alike, other, new_item(10))
    held = lease(bench, 1)
    opened = [
        (q, queue.unseal_item(bench.store.keys, CAMPAIGN_ID, q.item_id, q.sealed)) for q in held
    ]
    found = bulk.groups(opened, bench.store.campaign("tickets").kind)
    # One of six is kept back for a look of its own.
    assert [len(group.members) for group in found] == [5]
    assert found[0].class_index == 0


def test_one_undo_takes_a_whole_approval_back(bench) -> None:
    made = bench.fill(4)
    lease(bench, 1)
    token = "ab" * 12
    desk = annotations.Desk(1, bench.clock(), bench.store.keys, batch_token=token)
    ids = [entry.item_id for entry in made]
    assert bench.store.database.write(lambda c: bulk.approve(c, desk, ids, 2)) == 4
    assert [e.class_index for e in examples(bench)] == [2] * 4
    undone = bench.store.database.write(lambda c: bulk.undo(c, desk, token, bench.clock() + 60))
    assert undone == 4
    assert examples(bench) == []


def test_what_the_site_lead_declines_costs_nothing(bench) -> None:
    bench.set(is_held=True)
    bench.fill(3)
    asked = bench.store.database.read(lambda c: site_view.asked(c, CAMPAIGN_ID))
    assert [(a.count, a.held_count) for a in asked] == [(3, 3)]
    declined = bench.store.database.write(
        lambda c: site_view.decline_held(c, CAMPAIGN_ID, actor="person:1", now=bench.clock())
    )
    assert declined == 3
    assert [state for state, *_ in outcomes(bench)][3:] == ["DECLINED"] * 3
    bench.receive(new_item(7))
    bench.store.database.write(
        lambda c: site_view.release_held(c, CAMPAIGN_ID, actor="person:1", now=bench.clock())
    )
    assert len(lease(bench, 1)) == 1


def test_what_left_the_site_is_counted(bench) -> None:
    made = bench.fill(2)
    lease(bench, 1)
    decide(bench, 1, made[0].item_id, 1)
    left = bench.store.database.read(lambda c: site_view.left(c, CAMPAIGN_ID))
    assert {row.state: row.waiting_count for row in left} == {"LABELED": 1, "RELEASED": 2}


def test_totals_that_grow_with_each_event_are_those_of_the_rows(bench) -> None:
    bench.set(is_held=True)
    bench.fill(3)
    bench.set(is_held=False)
    made = [new_item(number) for number in range(10, 14)]
    bench.receive(*made)
    lease(bench, 1)
    for place, entry in enumerate(made):
        decide(bench, 1, entry.item_id, None if place == 0 else place % 3)
    undo(bench, 1)

    def send(connection):
        rows = outbox.claim(connection, bench.clock())
        outbox.mark_sent(connection, [(row.outbox_id, row.state) for row in rows] * 2, 5.0)

    bench.store.database.write(send)

    def shown(connection):
        return (
            site_view.asked(connection, CAMPAIGN_ID),
            site_view.left(connection, CAMPAIGN_ID),
            outbox.waiting_count(connection),
        )

    grown = bench.store.database.read(shown)
    bench.store.database.write(site_totals.recount)
    assert bench.store.database.read(shown) == grown
    assert [(row.count, row.held_count) for row in grown[0]] == [(7, 3)]
    assert {row.state: (row.sent_count, row.waiting_count) for row in grown[1]} == {
        "ABSTAINED": (0, 1), "LABELED": (0, 2), "RELEASED": (7, 0),
    }  # fmt: skip
    assert grown[2] == 3


@contextmanager
def closing_bench(folder) -> Iterator[Bench]:
    with LabelStore.open(folder) as store:
        yield Bench(store, Clock())


def newer_schema(classes: tuple[str, ...]) -> NewCampaign:
    return new_campaign(schema=LabelSchema(classes, version=2))


def item_states(bench):
    return bench.store.database.read(lambda c: c.execute(select(item)).all())


def quality_of(bench) -> quality.QualityReport:
    campaign = bench.store.campaign("tickets")
    return bench.store.database.read(lambda c: quality.report(c, campaign))


def test_a_quality_report_is_of_now_and_made_once_for_each_change(bench) -> None:
    campaign = bench.store.campaign("tickets")
    reports = QualityReports(bench.store.database)
    first = reports.of(campaign)
    assert reports.of(campaign) is first
    made = bench.fill(1)[0]
    lease(bench, 1)
    decide(bench, 1, made.item_id, 0)
    assert [entry.decision_count for entry in reports.of(campaign).experts] == [1]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5), st.integers(-2, 2)), max_size=25))
@settings(max_examples=25, deadline=None)
def test_sums_that_grow_with_each_decision_are_those_of_all_rows(tmp_path_factory, steps) -> None:
    with closing_bench(tmp_path_factory.mktemp("sums")) as bench:
        campaign = bench.store.campaign("tickets")
        bench.set(double_ratio=1.0)
        made = bench.fill(6)
        for expert in (1, 2, 3):
            lease(bench, expert)
        reports = QualityReports(bench.store.database)
        for place, (expert, number, answer) in enumerate(steps):
            if answer == -2:
                undo(bench, expert)
            else:
                decide(bench, expert, made[number].item_id, None if answer < 0 else answer)
            if place % 3 == 0:
                reports.of(campaign)
            if place == 10:
                keep_sums(bench, reports)
        assert reports.of(campaign) == quality_of(bench)
        reopened = QualityReports(bench.store.database)
        assert reopened.of(campaign) == quality_of(bench)


def keep_sums(bench, reports: QualityReports) -> None:
    for known in reports._known.values():
        known.kept_at = -(10**9)
    reports.keep_up()


def test_agreement_and_checks_follow_a_class_into_a_newer_schema(bench) -> None:
    bench.set(double_ratio=1.0)
    made = bench.fill(12)
    for expert in (1, 2):
        lease(bench, expert)
    for place, entry in enumerate(made):
        decide(bench, 1, entry.item_id, place % 2)
    # The newer schema turns the order of the classes round; the second expert answers under it.
    classes = bench.store.campaign("tickets").classes
    bench.store.put_campaign(newer_schema(tuple(reversed(classes))), bench.clock())
    last = len(classes) - 1
    for place, entry in enumerate(made):
        decide(bench, 2, entry.item_id, last - place % 2)
    found = quality_of(bench)
    assert found.alpha.value == 1.0
    assert [label.class_index for label in examples(bench)] == [last - n % 2 for n in range(12)]
    assert {row.state for row in item_states(bench)} == {"LABELED"}


def test_answers_of_a_class_that_went_are_left_out_of_agreement(bench) -> None:
    bench.set(double_ratio=1.0)
    made = bench.fill(4)
    for expert in (1, 2):
        lease(bench, expert)
        for place, entry in enumerate(made):
            decide(bench, expert, entry.item_id, place % 2)
    classes = bench.store.campaign("tickets").classes
    bench.store.put_campaign(newer_schema(classes[1:]), bench.clock())
    found = quality_of(bench)
    assert found.alpha.unit_count == 2
    assert [entry.decision_count for entry in found.experts] == [4, 4]


def test_a_choice_of_several_agrees_only_where_all_of_it_does(bench) -> None:
    bench.set(double_ratio=1.0, answer_mode="multi")
    made = bench.fill(4)
    for expert, choices in (
        (1, ((0, 1), (0, 2), (1, 2), (0,))),
        (2, ((0, 1), (0, 1), (1, 2), (0,))),
    ):
        lease(bench, expert)
        for entry, chosen in zip(made, choices, strict=True):
            answer = Answer(chosen[0], chosen if len(chosen) > 1 else ())
            decide(bench, expert, entry.item_id, answer)
    found = quality_of(bench)
    assert found.pairs[0].agreement_ratio == 0.75
    by_class = dict(found.classes)
    first, *_ = bench.store.campaign("tickets").classes
    assert by_class[first].value == 1.0
