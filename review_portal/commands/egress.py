"""`perimeter-portal egress show|verify|export`."""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
import time
from dataclasses import asdict
from pathlib import Path

from review_portal.commands.settings import config_of
from review_portal.egress import reading
from review_portal.egress.archive import EgressArchive
from review_portal.egress.decoding import kind_of
from review_portal.errors import EgressBroken, StoreMissing

_FIRST_FILE = "000000000001.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("action", choices=("show", "verify", "export"))
    parser.add_argument("target", nargs="?", type=Path, help="export: folder that is made")
    parser.add_argument("--device", default="", help="one machine: agent/<name> or portal/<name>")
    parser.add_argument("--day", type=_day, help="show: one day, YYYY-MM-DD")
    parser.add_argument("--last", type=int, default=20, help="show: so many of the newest")
    parser.add_argument("--full", action="store_true", help="show: every field of each message")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run(arguments: argparse.Namespace) -> int:
    """Shows, checks or exports what left this site."""
    archive = EgressArchive(config_of(arguments).folder)
    known = reading.sources(archive)
    if arguments.device and arguments.device not in known:
        names = ", ".join(known) or "none yet"
        raise StoreMissing(f"{arguments.device!r} has no ledger here; known: {names}")
    chosen = (arguments.device,) if arguments.device else known
    if arguments.action == "show":
        return _show(archive, arguments)
    if arguments.action == "verify":
        return _verify(archive, chosen, as_json=arguments.json)
    if arguments.target is None:
        raise StoreMissing("name the folder to export to: `perimeter-portal egress export FOLDER`")
    return _export(archive, chosen, arguments.target)


def _show(archive: EgressArchive, arguments: argparse.Namespace) -> int:
    choice = reading.Choice(day=arguments.day, source=arguments.device)
    for shown in reversed(reading.newest(archive, choice, count=max(1, arguments.last))):
        record = shown.record
        if arguments.json:
            print(json.dumps({"device": shown.source, **asdict(record)}, sort_keys=True))
            continue
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(record.at))
        line = f"{record.sequence:>8}  {at}  {record.size_bytes:>8} B"
        print(f"{line}  {shown.source}  {kind_of(record.method)}")
        for name, value in shown.fields if arguments.full else ():
            print(f"          {name} = {value}")
    return 0


def _verify(archive: EgressArchive, chosen: tuple[str, ...], *, as_json: bool) -> int:
    broken = []
    for source in chosen:
        found = reading.check(archive, source)
        if found.faults:
            broken.append(source)
        if as_json:
            print(json.dumps(asdict(found)))
        elif found.faults:
            print(f"{source}: BROKEN: {', '.join(found.faults)}")
        else:
            told = f"{found.message_count} messages, {found.byte_count} bytes left"
            print(f"{source}: whole, {told}, head {found.head}")
    if broken:
        raise EgressBroken(f"{', '.join(broken)}: compare with `perimeter-agent egress verify`")
    return 0


def _export(archive: EgressArchive, chosen: tuple[str, ...], target: Path) -> int:
    """Writes each ledger as its machine keeps it, so that a device's own check reads it."""
    if target.exists():
        raise StoreMissing(f"{target} is there already; name a new folder")
    for source in chosen:
        folder = target / re.sub(r"[^A-Za-z0-9._-]", "-", source)
        folder.mkdir(parents=True, mode=0o700)
        with (folder / _FIRST_FILE).open("wb") as file:
            file.writelines(reading.lines(archive, source))
        sys.stdout.write(f"{folder / _FIRST_FILE}\n")
    return 0


def _day(text: str) -> int:
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day; write YYYY-MM-DD") from None
    return day.toordinal() - datetime.date(1970, 1, 1).toordinal()
