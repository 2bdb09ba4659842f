"""Writes a campaign's samples where the site's devices and its portal will find them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.demo.layout import Layout, SiteLayout
from simulations.demo.samples import CampaignSource, SourceSample, device_names
from simulations.demo.truth import write_truth

SOURCE_FILE = "messages.jsonl"


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Returns a gray image as a PNG file.

    >>> png_bytes(np.zeros((2, 2), np.uint8))[1:4]
    b'PNG'
    """
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(pixels, mode="L").save(target, format="PNG")
    return target.getvalue()


def write_campaign(source: CampaignSource, layout: Layout) -> None:
    """Writes all samples of a campaign: pools to devices, held-out sets and truth to sites."""
    for site in source.sites:
        folder = layout.site(site)
        for device in device_names():
            write_pool(source, source.held_by(site, device), folder, device)
        write_import(held_out_file(folder, source.name), source.held_by(site))
        own = [sample for sample in source.samples if sample.site == site]
        write_truth(truth_file(folder, source.name), own)


def write_pool(
    source: CampaignSource, samples: Iterable[SourceSample], folder: SiteLayout, device: str
) -> None:
    """Writes one device's pool: PNG files in a watched folder, or lines of a growing file."""
    target = folder.source(device, source.name)
    target.mkdir(parents=True, exist_ok=True)
    if source.kind == "image":
        for sample in samples:
            assert not isinstance(sample.content, str)
            (target / f"{sample.key}.png").write_bytes(png_bytes(sample.content))
        return
    with (target / SOURCE_FILE).open("a", encoding="utf-8") as lines:
        for sample in samples:
            lines.write(json.dumps({"id": sample.key, "text": sample.content}) + "\n")


def write_import(path: Path, samples: Iterable[SourceSample]) -> None:
    """Writes labelled samples in the form that `perimeter-portal import` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as lines:
        for sample in samples:
            lines.write(json.dumps(import_row(sample)) + "\n")


def import_row(sample: SourceSample) -> dict[str, Any]:
    """Returns one labelled sample as the portal imports it.

    >>> import_row(SourceSample("k", "hello", "greeting", "alder"))
    {'id': 'k', 'label': 'greeting', 'text': 'hello'}
    """
    row: dict[str, Any] = {"id": sample.key, "label": sample.label}
    if isinstance(sample.content, str):
        row["text"] = sample.content
    else:
        encoded = base64.b64encode(png_bytes(sample.content)).decode()
        row["image"] = "data:image/png;base64," + encoded
    return row


def held_out_file(folder: SiteLayout, campaign: str) -> Path:
    """Returns where a site's held-out set of a campaign is written."""
    return folder.expert / f"{campaign}-test.jsonl"


def truth_file(folder: SiteLayout, campaign: str) -> Path:
    """Returns where a site's true classes of a campaign are written."""
    return folder.expert / f"{campaign}-truth.jsonl"
