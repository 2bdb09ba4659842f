"""From torch to the ONNX graph in the pack, and the check that both agree."""

import io

import numpy as np
import onnx
import torch

from edge_agent.masking.tokens import TRIGRAM_SLOTS
from simulations.name_tagger.network import ExportedTagger, TaggerNetwork

OPSET = 18
TOLERANCE = 2e-3


def export_onnx(network: TaggerNetwork) -> bytes:
    """Export the network; raises ValueError when ONNX and torch disagree."""
    model = ExportedTagger(network.eval()).eval()
    example = _example(2, 9)
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("tokens", min=1)
    axes = {0: batch, 1: length}
    program = torch.onnx.export(
        model,
        example,
        input_names=["words", "trigrams", "forms"],
        output_names=["probabilities"],
        dynamic_shapes={"words": axes, "trigrams": axes, "forms": axes},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    graph = program.model_proto
    graph.producer_version = ""
    del graph.graph.value_info[:]
    for node in graph.graph.node:
        # Notes about the source file would put a path of this machine into the pack.
        del node.metadata_props[:]
        node.doc_string = ""
    target = io.BytesIO()
    onnx.save_model(graph, target)
    content = target.getvalue()
    _check_parity(model, content)
    return content


def _example(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(1, high, shape, generator=generator, dtype=torch.int32)

    forms = torch.stack([draw(high, batch, length) for high in (13, 3, 31, 4)], dim=2)
    return draw(12000, batch, length), draw(16000, batch, length, TRIGRAM_SLOTS), forms


def _check_parity(model: ExportedTagger, content: bytes) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for shape in ((1, 1), (3, 40)):
        example = _example(*shape)
        with torch.no_grad():
            expected = model(*example).numpy()
        names = ("words", "trigrams", "forms")
        inputs = {name: part.numpy() for name, part in zip(names, example, strict=True)}
        (actual,) = session.run(None, inputs)
        worst = float(np.abs(actual - expected).max())
        if worst > TOLERANCE:
            raise ValueError(f"ONNX and torch differ by {worst:.5f}, allowed is {TOLERANCE}")
