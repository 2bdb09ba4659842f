"""Scores the pool of one campaign with one model version and seals the candidates for sending.

Scores can be computed again, so they wait in memory until a batch is worth sending; everything of a
batch (its bytes, the samples' scores, the pool's totals) is then stored in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from perimeter.v1 import candidate_pb2, model_pb2

from edge_agent.config import AgentConfig
from edge_agent.equal_rows import merge_equal
from edge_agent.errors import AgentError
from edge_agent.histograms import BINS, count_samples, is_noised
from edge_agent.inference import Predictor
from edge_agent.masking.risk import risk_band
from edge_agent.masking.seam import Held
from edge_agent.queue.journal import Refusal
from edge_agent.queue.outbox import SealedBatch, batch_columns
from edge_agent.queue.samples import OfferedScore, SampleState, StoredSample
from edge_agent.queue.stores import Stores
from edge_agent.scoring import CandidateColumns, ModelOutputs, score, softmax, with_coverage
from edge_agent.sources.decoding import cost_band, decode
from edge_agent.views import TRANSIENT, Raw, ViewMaker
from model_bundle.errors import FeatureInvalid

MASK_ROWS_MAX = 64
"""Samples masked in one turn, so that grants never wait long for a large pool."""
SECONDS_PER_DAY = 86_400
MASKABLE_KINDS = ("text", "record")


class InferenceFailed(AgentError):
    """The model fails on most samples, so the fault is the model's."""


@dataclass
class ScoredRows:
    """Rows that wait to become a batch.

    Attributes:
        candidate_ids: 16 bytes each.
        columns: Their scores, by turn.
        top_probabilities: Largest class probabilities, by turn.
        embeddings: By turn, while the model is untrained: float32[n, d], so 2.3 MB for the 9000
            rows of a batch at 64 numbers each. They go with the batch and are never stored or sent.
    """

    candidate_ids: list[bytes] = field(default_factory=list)
    columns: list[CandidateColumns] = field(default_factory=list)
    top_probabilities: list[NDArray[np.float32]] = field(default_factory=list)
    embeddings: list[NDArray[np.float32]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.candidate_ids)

    def joined(self) -> CandidateColumns:
        """Returns the columns of all rows; the density bands of an untrained model say coverage."""
        columns = joined_columns(self.columns)
        if not self.embeddings:
            return columns
        return with_coverage(columns, np.concatenate(self.embeddings))


class PoolScorer:
    """One campaign under one model version.

    Args:
        campaign: As the coordinator described it.
        predictor: The installed model.
        stores: The queue.
        views: Makes masked views.
        config: Limits and the sources' languages.
    """

    def __init__(
        self,
        campaign: model_pb2.Campaign,
        predictor: Predictor,
        stores: Stores,
        views: ViewMaker,
        config: AgentConfig,
    ) -> None:
        self.campaign = campaign
        self.predictor = predictor
        self._stores = stores
        self._views = views
        self._config = config
        self._position = 0
        self._keys: dict[str, str] = {}
        self._rows = ScoredRows()
        self._idle = False
        begun = stores.outbox.begin_version(
            campaign.campaign_id,
            predictor.version,
            class_count=len(predictor.manifest.label_schema),
        )
        if begun:
            stores.samples.reopen_unfit(campaign.campaign_id)
        self.is_noised = is_noised(campaign, stores.privacy)
        self._covers = predictor.needs_coverage(alone=self.is_noised)
        self.counts = np.zeros((self._cell_count, BINS), dtype=np.int64)
        released = stores.privacy.release(campaign.campaign_id, predictor.version)
        if self.is_noised and released is None:
            self._count_anew()

    @property
    def polled_sources(self) -> list[str]:
        """Names of the folders and files whose samples go into the pool."""
        own = [s for s in self._config.sources if s.campaign == self.campaign.name]
        return [s.name for s in own if s.type != "push"]

    @property
    def _cell_count(self) -> int:
        return max(1, self.predictor.manifest.cell_count)

    def _count_anew(self) -> None:
        """Exact counts are never written down, so a restart before the release begins again."""
        version, classes = self.predictor.version, len(self.predictor.manifest.label_schema)
        with self._stores.database.transaction():
            self._stores.samples.score_again(self.campaign.campaign_id)
            self._stores.outbox.forget_pool(self.campaign.campaign_id)
            self._stores.outbox.begin_version(
                self.campaign.campaign_id, version, class_count=classes
            )

    @property
    def is_masked(self) -> bool:
        """True when samples are masked before they are scored."""
        return self.campaign.view == "masked" and self.campaign.kind in MASKABLE_KINDS

    @property
    def is_done(self) -> bool:
        """True when every known sample was scored and its row sealed for sending."""
        return self._idle and not len(self._rows)

    def turn(self, now: float, *, more_to_come: bool = False) -> bool:
        """Masks and scores some samples; True when there is more to do right now.

        Args:
            now: Seconds since 1970.
            more_to_come: Whether a source has more samples at hand. An untrained model's rows are
                sealed when all of them are scored, since they are compared with each other.

        Raises:
            MaskingUnavailable: Masking cannot start.
            InferenceFailed: The model cannot be used.
            StorageFull: A batch could not be stored; its rows wait in memory.
        """
        limits = self._config.limits
        samples = self._stores.samples.waiting(
            self.campaign.campaign_id,
            self.predictor.version,
            after=self._position,
            count_max=limits.score_rows_max,
        )
        if not samples and self.is_masked and self._has_unasked_held():
            self._take_policy()
            return True
        self._idle = not samples
        if samples:
            ready, reached = self._with_views(samples) if self.is_masked else (samples, samples[-1])
            self._score(ready, now)
            # Without a settled sample the policy is new, and the pool is looked through again.
            self._position = reached.row_id if reached else 0
        is_last = not samples and not (more_to_come and self._covers)
        if len(self._rows) >= limits.candidate_batch_rows or (len(self._rows) and is_last):
            self._seal_batch(now)
        return bool(samples) or len(self._rows) > 0

    def probabilities(self, content: bytes) -> tuple[NDArray[np.float32], ModelOutputs]:
        """Returns float32[classes] and the outputs of the model for one sample."""
        outputs = self.predictor.predict([decode(content, self.campaign.kind)])
        return softmax(outputs.logits, temperature=self.predictor.temperature)[0], outputs

    def _with_views(
        self, samples: Sequence[StoredSample]
    ) -> tuple[list[StoredSample], StoredSample | None]:
        """Masks some of the samples; returns those that can be scored and the last one settled."""
        if not self._keys:
            self._take_policy()
            return [], None
        missing = [s for s in samples if not self._has_view(s)][:MASK_ROWS_MAX]
        self._mask(missing)
        masked = {s.row_id for s in missing}
        reached: StoredSample | None = None
        ready: list[StoredSample] = []
        for sample in samples:
            fresh: StoredSample | None = sample
            if sample.row_id in masked:
                fresh = self._stores.samples.find(self.campaign.campaign_id, sample.candidate_id)
            if fresh is not None and fresh.state is SampleState.OPEN:
                if not self._has_view(fresh):
                    break
                ready.append(fresh)
            reached = sample
        return ready, reached

    def _take_policy(self) -> None:
        """Learns today's policy; what another one held, or chance did, gets a new turn."""
        sources = [s for s in self._config.sources if s.campaign == self.campaign.name]
        self._keys = {s.name: self._views.policy_key(s) for s in sources}
        self._keys[""] = self._views.policy_key(None)
        for name, key in self._keys.items():
            self._stores.samples.reopen_held(self.campaign.campaign_id, name, key)

    def _has_unasked_held(self) -> bool:
        """True when samples are held and nobody asked yet whether today's policy would."""
        return not self._keys and self._stores.samples.has_held(self.campaign.campaign_id)

    def _key(self, sample: StoredSample) -> str:
        return self._keys.get(sample.source, self._keys[""])

    def _has_view(self, sample: StoredSample) -> bool:
        return sample.view is not None and sample.view_policy == self._key(sample)

    def _mask(self, samples: Sequence[StoredSample]) -> None:
        raws = [Raw(s.content, self.campaign.kind, self._config.source(s.source)) for s in samples]
        answers = self._views.make(raws)
        with self._stores.database.transaction():
            for sample, answer in zip(samples, answers, strict=True):
                if isinstance(answer, Held):
                    policy = "" if answer.reason in TRANSIENT else self._key(sample)
                    self._stores.samples.hold(sample.row_id, policy, answer.reason.value)
                else:
                    self._stores.samples.record_view(sample, self._key(sample), answer)

    def _score(self, samples: Sequence[StoredSample], now: float) -> None:
        contents = [s.view.content if self.is_masked and s.view else s.content for s in samples]
        fit, outputs = self._predict(samples, contents, now)
        if not fit:
            return
        columns = self.columns(outputs)
        risks = [self._risk(samples[i]) for i in fit]
        costs = [cost_band(contents[i], self.campaign.kind) for i in fit]
        columns = columns.with_bands(
            risk_bands=np.array(risks, dtype=np.uint8), cost_bands=np.array(costs, dtype=np.uint8)
        )
        top = softmax(outputs.logits, temperature=self.predictor.temperature).max(axis=1)
        self._rows.candidate_ids += [samples[i].candidate_id for i in fit]
        self._rows.columns.append(columns)
        self._rows.top_probabilities.append(top)
        if self._covers:
            self._rows.embeddings.append(outputs.embedding)

    def columns(self, outputs: ModelOutputs) -> CandidateColumns:
        """Returns the candidate columns of model outputs, without bands."""
        return score(
            outputs,
            temperature=self.predictor.temperature,
            prototypes=self.predictor.prototypes,
            code_book=self.predictor.code_book,
        )

    def _risk(self, sample: StoredSample) -> int:
        if sample.view is not None and self.is_masked:
            return sample.view.risk_band
        return risk_band(sample.content.decode()) if self.campaign.kind == "text" else 0

    def _predict(
        self, samples: Sequence[StoredSample], contents: Sequence[bytes], now: float
    ) -> tuple[list[int], ModelOutputs]:
        """Runs the model; samples that do not fit are put aside, one by one.

        Returns:
            Positions of the samples that fit, and the outputs for them.
        """
        decoded = [decode(content, self.campaign.kind) for content in contents]
        try:
            outputs = self._checked(decoded)
            return list(range(len(samples))), outputs
        except Exception:  # noqa: BLE001 - the runtime's kinds share no base; sorted out below
            fit = self._sort_out(samples, decoded, now)
        return fit, self._checked([decoded[i] for i in fit]) if fit else _no_outputs()

    def _checked(self, decoded: Sequence[Any]) -> ModelOutputs:
        outputs = self.predictor.predict(decoded)
        self.columns(outputs)
        return outputs

    def _sort_out(
        self, samples: Sequence[StoredSample], decoded: Sequence[Any], now: float
    ) -> list[int]:
        fit: list[int] = []
        refusals: list[Refusal] = []
        model_fault_count = 0
        for i, sample in enumerate(samples):
            try:
                self._checked([decoded[i]])
                fit.append(i)
                continue
            except FeatureInvalid as error:
                why = str(error)
            except Exception as error:  # noqa: BLE001 - the runtime's kinds share no base
                model_fault_count += 1
                why = f"the model fails on this sample ({type(error).__name__})"
            refusals.append(Refusal(sample.source, "unfit", why, f"sample {sample.row_id}"))
        if model_fault_count * 2 > len(samples) and model_fault_count > 1:
            raise InferenceFailed(f"model version {self.predictor.version} fails on most samples")
        with self._stores.database.transaction():
            for i in set(range(len(samples))) - set(fit):
                self._stores.samples.set_state(samples[i].row_id, SampleState.UNFIT)
            self._stores.journal.record_refusals(refusals, now)
        return fit

    def _seal_batch(self, now: float) -> None:
        if self.is_noised:
            self._count_batch()
            return
        rows = self._rows
        campaign_id = self.campaign.campaign_id
        step = self._config.limits.candidate_batch_rows
        joined = rows.joined()
        top = np.concatenate(rows.top_probabilities)
        with self._stores.database.transaction():
            for start in range(0, len(rows), step):
                part = np.arange(start, min(start + step, len(rows)))
                ids = rows.candidate_ids[start : start + step]
                columns = joined.take(part)
                batch = self._batch(ids, columns, now)
                sealed = SealedBatch(campaign_id, batch.sequence, batch.SerializeToString())
                totals = self._stores.outbox.totals(campaign_id)
                assert totals is not None
                totals = totals.plus(columns.predicted_classes, top[part])
                self._stores.outbox.append(sealed, row_count=len(ids), totals=totals)
                self._stores.samples.record_scores(campaign_id, self._offered(ids, columns))
        self._rows = ScoredRows()

    def _count_batch(self) -> None:
        """Counts rows that may not leave, and keeps their scores for this device's own choice."""
        columns = self._rows.joined()
        self._stores.samples.record_scores(
            self.campaign.campaign_id, self._offered(self._rows.candidate_ids, columns)
        )
        self._stores.bindings.forget_ranking(self.campaign.campaign_id)
        self.counts += count_samples(columns.cell_ids, columns.margins, self._cell_count)
        self._rows = ScoredRows()

    def _batch(
        self, ids: Sequence[bytes], columns: CandidateColumns, now: float
    ) -> candidate_pb2.CandidateBatch:
        sequence, replaces = self._stores.outbox.next_sequence(self.campaign.campaign_id)
        merged = merge_equal(columns, ids, named_max=self.campaign.equal_rows_max)
        sent, counts = columns.take(merged.rows), merged.further_counts
        manifest = self.predictor.manifest
        number = sequence.to_bytes(8, "little")
        return candidate_pb2.CandidateBatch(
            request_id=self._stores.sealer.keyed_id(b"batch", self.campaign.campaign_id, number),
            campaign_id=self.campaign.campaign_id,
            sequence=sequence,
            model_version=manifest.version,
            code_book_version=manifest.version if manifest.cell_count else 0,
            label_schema_digest=manifest.label_schema.digest(),
            day=int(now) // SECONDS_PER_DAY,
            row_count=len(sent),
            candidate_ids=b"".join(ids[row] for row in merged.rows.tolist()),
            replaces_older_versions=replaces,
            further_counts=counts.tobytes() if counts.any() else b"",
            **{name: batch_columns([getattr(sent, name)]) for name in COLUMN_NAMES},
        )

    def _offered(
        self, ids: Sequence[bytes], columns: CandidateColumns
    ) -> list[tuple[bytes, OfferedScore]]:
        covers = 0x0F if self.predictor.is_untrained else 0
        return [
            (
                candidate_id,
                OfferedScore(
                    self.predictor.version,
                    int(columns.margins[i]),
                    int(columns.predicted_classes[i]),
                    int(columns.prototype_classes[i]),
                    int(columns.density_cost[i]) & covers,
                ),
            )
            for i, candidate_id in enumerate(ids)
        ]


COLUMN_NAMES = tuple(column.name for column in fields(CandidateColumns))


def joined_columns(parts: Sequence[CandidateColumns]) -> CandidateColumns:
    """Joins columns of several turns into one."""
    return CandidateColumns(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMN_NAMES}
    )


def _no_outputs() -> ModelOutputs:
    none = np.zeros((0, 0), dtype=np.float32)
    return ModelOutputs(none, none)
