"""`perimeter-portal enroll TOKEN`."""

from __future__ import annotations

import argparse
import sys
import time

from review_portal.commands.settings import config_of
from review_portal.egress.archive import EgressArchive
from review_portal.enrollment import enroll, parse_join_token
from review_portal.label_store import LabelStore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("token", help="join token from the coordinator; - reads standard input")


def run(arguments: argparse.Namespace) -> int:
    """Enrolls, and makes the label store."""
    config = config_of(arguments)
    given: str = arguments.token
    text = sys.stdin.readline() if given == "-" else given
    archive = EgressArchive(config.folder)
    identity = enroll(parse_join_token(text), config.folder_of("identity"), archive, time.time)
    archive.close()
    LabelStore.open(config.folder).close()
    print(f"enrolled as {identity.name} of site {identity.site_id}")
    return 0
