"""Image classification as COCO (one JSON file) and YOLO (a folder for each class).

Neither was made for whole-image classes or for provenance, so both print what they lose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from model_bundle.label_schema import LabelSchema
from review_portal.core.model import Kind
from review_portal.interchange.contents import file_inside, plain_png, png_size
from review_portal.interchange.errors import FileUnreadable, FormatUnsuited
from review_portal.interchange.records import (
    ExportedItem,
    ExportReport,
    ImportedRow,
    LossLedger,
    ReadRow,
    classes_of,
)
from review_portal.interchange.row_errors import class_answer, rows
from review_portal.interchange.whole_files import new_folder

COCO_BYTES_MAX = 512 * 1024 * 1024
"""Largest COCO file that is read; it is held in memory."""
_BOX = "COCO has no class for a whole image: each label is a box over all of it"
_PROVENANCE = "annotations of single experts, suggestions and provenance are left out"
_UNLABELED = "items without a class are left out"
_MANY = "items with several classes are left out: YOLO classification holds one class an image"
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


def write_coco(records: Iterable[ExportedItem], target: Path, schema: LabelSchema) -> ExportReport:
    """Writes `annotations.json` and `images/`; image ids count from 1.

    Raises:
        TargetExists: There is something at `target` already.
        FormatUnsuited: An item is no image.
    """
    losses = LossLedger()
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    with new_folder(target) as folder:
        (folder / "images").mkdir()
        for record in _images_only(records, "COCO"):
            name = f"{record.item_id}.png"
            (folder / "images" / name).write_bytes(record.content)
            width, height = png_size(record.content)
            images.append({
                "id": len(images) + 1, "file_name": name, "width": width, "height": height,
                "item_id": record.item_id, "split": record.split,
            })  # fmt: skip
            annotations += _boxes(record, len(images), len(annotations), (width, height))
            _note_losses(record, losses)
            if record.label is not None and classes_of(record.label.answer):
                losses.note(_BOX)
        categories = [
            {"id": index + 1, "name": name, "supercategory": ""}
            for index, name in enumerate(schema.classes)
        ]
        whole = {
            "info": {"description": "labels of one site", "version": str(schema.version)},
            "licenses": [], "images": images, "annotations": annotations, "categories": categories,
        }  # fmt: skip
        (folder / "annotations.json").write_text(
            json.dumps(whole, ensure_ascii=False, indent=1), encoding="utf-8"
        )
    return ExportReport(losses.lossy_steps(), len(images))


def _boxes(
    record: ExportedItem, image_id: int, before: int, size: tuple[int, int]
) -> list[dict[str, object]]:
    width, height = size
    chosen = classes_of(record.label.answer if record.label else None)
    return [
        {
            "id": before + place + 1, "image_id": image_id, "category_id": index + 1,
            "bbox": [0, 0, width, height], "area": width * height, "iscrowd": 0,
            "segmentation": [[0, 0, width, 0, width, height, 0, height]],
        }
        for place, index in enumerate(chosen)
    ]  # fmt: skip


def write_yolo(records: Iterable[ExportedItem], target: Path, schema: LabelSchema) -> ExportReport:
    """Writes `<split>/<class folder>/<item>.png` and `classes.json`.

    Class folders begin with the class index, because YOLO numbers classes in the order of names.

    Raises:
        TargetExists: There is something at `target` already.
        FormatUnsuited: An item is no image.
    """
    losses, count = LossLedger(), 0
    folders = class_folders(schema)
    with new_folder(target) as folder:
        for record in _images_only(records, "YOLO"):
            chosen = classes_of(record.label.answer if record.label else None)
            if len(chosen) != 1:
                losses.note(_MANY if chosen else _UNLABELED)
                continue
            place = folder / record.split / folders[chosen[0]]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{record.item_id}.png").write_bytes(record.content)
            _note_losses(record, losses)
            count += 1
        names = dict(zip(folders, schema.classes, strict=True))
        (folder / "classes.json").write_text(
            json.dumps(names, ensure_ascii=False, indent=1), encoding="utf-8"
        )
    return ExportReport(losses.lossy_steps(), count)


def class_folders(schema: LabelSchema) -> list[str]:
    """Returns a folder name for each class, in order, safe on any file system.

    >>> class_folders(LabelSchema(("T-shirt/top", "Bag")))
    ['0000_T-shirt_top', '0001_Bag']
    """
    return [
        f"{index:04d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:60]}"
        for index, name in enumerate(schema.classes)
    ]


def _images_only(records: Iterable[ExportedItem], name: str) -> Iterator[ExportedItem]:
    for record in records:
        if record.kind is not Kind.IMAGE:
            raise FormatUnsuited(
                f"{name} holds images, not {record.kind.value}; use label-studio or huggingface"
            )
        yield record


def _note_losses(record: ExportedItem, losses: LossLedger) -> None:
    if record.annotations or record.suggestion or record.provenance:
        losses.note(_PROVENANCE)


def read_coco(path: Path, schema: LabelSchema, kind: Kind) -> Iterator[ReadRow]:
    """Reads a COCO file, or `annotations.json` of a folder; boxes count as classes of the image.

    Raises:
        FormatUnsuited: The campaign holds no images.
        FileUnreadable: The file is missing, too large or no COCO file.
    """
    _check_kind(kind, "COCO")
    file = path / "annotations.json" if path.is_dir() else path
    whole = _coco(file)
    categories = {c["id"]: str(c["name"]) for c in whole["categories"]}
    chosen: dict[object, list[object]] = {}
    for annotation in whole["annotations"]:
        name = categories.get(annotation.get("category_id"))
        chosen.setdefault(annotation.get("image_id"), []).append(name)

    def build(number: int, image: Mapping[str, object]) -> ImportedRow:
        name = str(image.get("file_name", ""))
        folder = file.parent / "images" if (file.parent / "images").is_dir() else file.parent
        content = plain_png(file_inside(name, folder))
        answer = class_answer(chosen.get(image.get("id")), schema)
        split = image.get("split")
        source_id = str(image.get("item_id", image.get("id", "")))
        known = str(split) if split in ("train", "test") else ""
        return ImportedRow(number, source_id, Kind.IMAGE, content, answer, known)

    return rows(enumerate(whole["images"], start=1), build, id_keys=("item_id", "id"))


def _coco(file: Path) -> dict[str, list[dict[str, object]]]:
    try:
        if file.stat().st_size > COCO_BYTES_MAX:
            raise FileUnreadable(f"{file.name} is larger than 512 MiB; split it")
        whole = json.loads(file.read_bytes())
    except OSError as error:
        raise FileUnreadable(f"{file} cannot be read: {error.strerror}; check the path") from None
    except (ValueError, RecursionError) as error:
        raise FileUnreadable(f"{file.name} is not JSON: {error}") from None
    parts = ("images", "annotations", "categories")
    if not isinstance(whole, dict) or not all(isinstance(whole.get(p), list) for p in parts):
        raise FileUnreadable(f"{file.name} is no COCO file: it needs {', '.join(parts)} as lists")
    entries = [entry for part in ("annotations", "categories") for entry in whole[part]]
    if not all(isinstance(entry, dict) for entry in entries):
        raise FileUnreadable(f"{file.name} is no COCO file: its lists must hold objects")
    if not all({"id", "name"} <= set(category) for category in whole["categories"]):
        raise FileUnreadable(f"{file.name} is no COCO file: a category lacks id or name")
    return whole


def read_yolo(path: Path, schema: LabelSchema, kind: Kind) -> Iterator[ReadRow]:
    """Reads `<split>/<class folder>/<image>`; folders are class names or listed in `classes.json`.

    The splits train and test keep their name; others, such as val, come without one.

    Raises:
        FormatUnsuited: The campaign holds no images.
        FileUnreadable: The folder is missing or holds no image.
    """
    _check_kind(kind, "YOLO")
    names = _yolo_names(path)
    files = sorted(f for f in path.glob("*/*/*") if f.suffix.lower() in _SUFFIXES)
    if not files:
        raise FileUnreadable(f"{path} holds no <split>/<class>/<image>; name the dataset's folder")

    def build(number: int, row: Mapping[str, object]) -> ImportedRow:
        relative = Path(str(row["file"]))
        split, folder = relative.parts[0], relative.parts[1]
        content = plain_png(file_inside(str(relative), path))
        answer = class_answer(names.get(folder, folder), schema)
        known = split if split in ("train", "test") else ""
        return ImportedRow(number, relative.stem, Kind.IMAGE, content, answer, known)

    listed = (
        (number, {"file": str(file.relative_to(path)), "id": file.stem})
        for number, file in enumerate(files, start=1)
    )
    return rows(listed, build)


def _yolo_names(path: Path) -> dict[str, str]:
    file = path / "classes.json"
    if not file.exists():
        return {}
    try:
        names = json.loads(file.read_bytes())
    except ValueError as error:
        raise FileUnreadable(f"{file} is not JSON: {error}") from None
    if not isinstance(names, dict):
        raise FileUnreadable(f"{file} must map folder names to class names")
    return {str(folder): str(name) for folder, name in names.items()}


def _check_kind(kind: Kind, name: str) -> None:
    if kind is not Kind.IMAGE:
        raise FormatUnsuited(f"{name} holds images; this campaign holds {kind.value} items")
