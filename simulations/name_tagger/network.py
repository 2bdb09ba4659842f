"""The tagger as a torch network: hashed words and trigrams, residual convolutions, one head."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_agent.masking import tokens
from simulations.name_tagger.pack_writer import LABELS

WIDTH = 112
WORD_WIDTH = 48
TRIGRAM_WIDTH = 32
DILATIONS = (1, 2, 4, 1)
_FORM_WIDTHS = (8, 4, 12, 4)


class TaggerNetwork(nn.Module):
    """Label scores for each token of a batch.

    Inputs are those of `edge_agent.masking.tokens.TokenArrays`, outputs logits
    float32[batch, tokens, len(LABELS)]. Words, trigrams and gazetteer flags are dropped at random
    in training, so that the network learns from shape and context as well.
    """

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(tokens.WORD_ROWS, WORD_WIDTH, padding_idx=0)
        self.trigrams = nn.Embedding(tokens.TRIGRAM_ROWS, TRIGRAM_WIDTH, padding_idx=0)
        rows = (tokens.SHAPES, tokens.GAPS, tokens.FLAG_ROWS, tokens.CASES)
        self.forms = nn.ModuleList(
            nn.Embedding(count, width) for count, width in zip(rows, _FORM_WIDTHS, strict=True)
        )
        for table in (self.words, self.trigrams):
            nn.init.normal_(table.weight, std=0.1)
        self.enter = nn.Linear(WORD_WIDTH + TRIGRAM_WIDTH + sum(_FORM_WIDTHS), WIDTH)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(WIDTH, WIDTH, 3, dilation=d, padding=d) for d in DILATIONS
        )
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in DILATIONS)
        self.dropout = nn.Dropout(0.15)
        self.head = nn.Linear(WIDTH, len(LABELS))

    def forward(self, words: Tensor, trigrams: Tensor, forms: Tensor) -> Tensor:
        """Logits of a batch; see the class for shapes."""
        # Padding has case 0; zeroing it keeps a text's result independent of its batch.
        present = (forms[:, :, 3:4] > 0).to(self.words.weight.dtype)
        drop_word, drop_trigram, drop_flags = self._drops(words)
        word = self.words(words * drop_word)
        grams = self.trigrams(trigrams).sum(dim=2) * drop_trigram.unsqueeze(2)
        flags = forms[:, :, 2] * drop_flags
        columns = (forms[:, :, 0], forms[:, :, 1], flags, forms[:, :, 3])
        form = [table(column) for table, column in zip(self.forms, columns, strict=True)]
        state = torch.relu(self.enter(torch.cat([word, grams, *form], dim=2))) * present
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            change = torch.relu(convolution(state.transpose(1, 2)).transpose(1, 2))
            state = norm(state + self.dropout(change)) * present
        logits: Tensor = self.head(state)
        return logits

    def _drops(self, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keep-masks for words, trigrams and flags; all ones outside training."""
        if not self.training:
            ones = torch.ones_like(words)
            return ones, ones.to(self.words.weight.dtype), ones
        keep_word = (torch.rand(words.shape) > 0.30).to(words.dtype)
        keep_trigram = (torch.rand(words.shape) > 0.12).to(self.words.weight.dtype)
        keep_flags = (torch.rand(words.shape) > 0.20).to(words.dtype)
        return keep_word, keep_trigram, keep_flags


class ExportedTagger(nn.Module):
    """The network as the device runs it: half-precision tables, probabilities out."""

    def __init__(self, network: TaggerNetwork) -> None:
        super().__init__()
        self.network = network
        self.word_table = nn.Parameter(network.words.weight.detach().half(), requires_grad=False)
        self.trigram_table = nn.Parameter(
            network.trigrams.weight.detach().half(), requires_grad=False
        )

    def forward(self, words: Tensor, trigrams: Tensor, forms: Tensor) -> Tensor:
        """Probabilities float32[batch, tokens, labels]."""
        net = self.network
        present = (forms[:, :, 3:4] > 0).float()
        word = functional.embedding(words, self.word_table).float()
        grams = functional.embedding(trigrams, self.trigram_table).float().sum(dim=2)
        form = [table(forms[:, :, i]) for i, table in enumerate(net.forms)]
        state = torch.relu(net.enter(torch.cat([word, grams, *form], dim=2))) * present
        for convolution, norm in zip(net.convolutions, net.norms, strict=True):
            change = torch.relu(convolution(state.transpose(1, 2)).transpose(1, 2))
            state = norm(state + change) * present
        return torch.softmax(net.head(state), dim=2)
