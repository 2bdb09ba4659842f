"""Trains the tagger on one core; the same seed gives the same weights on the same machine."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_agent.masking.tokens import Featurizer, Token, TokenArrays, tokenize
from simulations.name_tagger.generator import Sentence, disguise
from simulations.name_tagger.network import TaggerNetwork
from simulations.name_tagger.pack_writer import LABELS

_IGNORED = -100
_MAX_TOKENS = 160


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How the tagger is trained.

    Attributes:
        epochs: Passes over the data.
        batch_tokens: Rough number of tokens in a batch.
        peak_rate: Highest learning rate; it rises over the first tenth and then falls to zero.
        seed: Seed of everything.
        label_smoothing: Share of each label that training spreads over the others. At 0 a harmless
            word keeps next to no probability of a name, so that low thresholds tell words apart.
    """

    epochs: int = 4
    batch_tokens: int = 2000
    peak_rate: float = 2.5e-3
    seed: int = 0
    label_smoothing: float = 0.0


def train(
    sentences: Sequence[Sentence],
    flags: Mapping[int, int],
    plan: TrainingPlan,
    *,
    renamed: Callable[[Sentence], Sentence] = lambda sentence: sentence,
    report: Callable[[str], None] = lambda _: None,
) -> TaggerNetwork:
    """Train a network.

    Args:
        sentences: Labelled texts.
        flags: Gazetteer flags by word hash.
        plan: Epochs, rate, seed.
        renamed: Gives a real text other names each time that it is used.
        report: Receives one line an epoch.
    """
    torch.manual_seed(plan.seed)
    torch.set_num_threads(1)
    chance = random.Random(plan.seed)
    featurizer = Featurizer(flags)
    network = TaggerNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), lr=plan.peak_rate, weight_decay=0.01)
    step_count = plan.epochs * sum(1 for _ in _batches(sentences, plan.batch_tokens, chance))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.peak_rate, total_steps=step_count + 2 * plan.epochs, pct_start=0.1
    )
    criterion = nn.CrossEntropyLoss(ignore_index=_IGNORED, label_smoothing=plan.label_smoothing)
    for epoch in range(plan.epochs):
        network.train()
        losses = []
        for batch in _batches(sentences, plan.batch_tokens, chance):
            arrays, labels = _tensors([_varied(s, renamed, chance) for s in batch], featurizer)
            logits = network(*arrays)
            loss = criterion(logits.flatten(0, 1), labels.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            if scheduler.last_epoch < step_count + 2 * plan.epochs - 1:
                scheduler.step()
            losses.append(float(loss.detach()))
        report(f"epoch {epoch + 1}/{plan.epochs}: loss {np.mean(losses):.4f}")
    return network.eval()


def label_tokens(sentence: Sentence, tokens: Sequence[Token]) -> list[int]:
    """Label number of each token, -100 where training must not look.

    >>> s = Sentence("Ann is 3", ((0, 3, "PERSON"), (7, 8, "IGNORE")))
    >>> label_tokens(s, tokenize(s.text))
    [1, 0, -100]
    """
    numbers = {name: number for number, name in enumerate(LABELS)}
    labels = [0] * len(tokens)
    for start, end, name in sentence.spans:
        for position, token in enumerate(tokens):
            if token.start < end and start < token.end:
                labels[position] = numbers.get(name, _IGNORED)
    return labels


def _batches(
    sentences: Sequence[Sentence], batch_tokens: int, chance: random.Random
) -> Iterator[list[Sentence]]:
    """Batches of texts of similar length, in random order."""
    order = sorted(
        range(len(sentences)), key=lambda i: (len(sentences[i].text) // 24, chance.random())
    )
    batches: list[list[Sentence]] = [[]]
    size = 0
    for index in order:
        length = len(sentences[index].text) // 4 + 4
        if size + length > batch_tokens and batches[-1]:
            batches.append([])
            size = 0
        batches[-1].append(sentences[index])
        size += length
    chance.shuffle(batches)
    yield from batches


def _varied(
    sentence: Sentence, renamed: Callable[[Sentence], Sentence], chance: random.Random
) -> Sentence:
    """Other names in a real text and a fresh disguise for one text in ten: epochs differ."""
    sentence = renamed(sentence) if sentence.is_real else sentence
    return disguise(sentence, chance) if chance.random() < 0.35 else sentence


def _tensors(
    batch: Sequence[Sentence], featurizer: Featurizer
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    token_lists = [tokenize(sentence.text)[:_MAX_TOKENS] for sentence in batch]
    arrays: TokenArrays = featurizer.arrays([s.text for s in batch], token_lists)
    labels: NDArray[np.int64] = np.full(arrays.words.shape, _IGNORED, np.int64)
    for row, (sentence, tokens) in enumerate(zip(batch, token_lists, strict=True)):
        labels[row, : len(tokens)] = label_tokens(sentence, tokens)
    inputs = tuple(
        torch.from_numpy(part.astype(np.int64))
        for part in (arrays.words, arrays.trigrams, arrays.forms)
    )
    return (inputs[0], inputs[1], inputs[2]), torch.from_numpy(labels)
