"""`perimeter-portal user add|list|disable|enable|password`."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import time
from pathlib import Path

from review_portal.access import Access, read_secret
from review_portal.commands.settings import config_of
from review_portal.core.model import Role
from review_portal.errors import AccessError
from review_portal.label_store import LabelStore
from review_portal.store import people


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("action", choices=("add", "list", "disable", "enable", "password"))
    parser.add_argument("username", nargs="?", default="")
    parser.add_argument("--role", choices=[role.value for role in Role], default="expert")
    parser.add_argument("--name", default="", help="display name")
    parser.add_argument("--languages", default="", help="languages read, as in en,de; all if empty")
    parser.add_argument("--skills", default="", help="skills, separated by commas")
    parser.add_argument("--hours", type=float, default=1.0, help="hours a day for labeling")
    parser.add_argument(
        "--password-file",
        type=Path,
        help="file whose first line is the password; without it PERIMETER_PORTAL_PASSWORD, "
        "a prompt, or standard input",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs one action."""
    config = config_of(arguments)
    with LabelStore.open(config.folder) as store:
        access = Access(store.database, config, clock=time.time, secret=read_secret(config.folder))
        if arguments.action == "list":
            for person in store.database.read(people.list_people):
                state = "disabled" if person.is_disabled else "active"
                print(f"{person.username}\t{person.role}\t{state}\t{person.display_name}")
            return 0
        if not arguments.username:
            raise AccessError(f"`user {arguments.action}` needs a user name")
        if arguments.action == "add":
            return _add(arguments, store, access)
        return _change(arguments, store, access)


def _add(arguments: argparse.Namespace, store: LabelStore, access: Access) -> int:
    person_id = access.add_person(
        arguments.username,
        read_password(arguments.password_file),
        role=Role(arguments.role),
        display_name=arguments.name,
    )
    changes = {
        "languages": _listed(arguments.languages),
        "skills": _listed(arguments.skills),
        "hours_per_day": arguments.hours,
    }
    store.database.write(lambda c: people.change_person(c, person_id, changes))
    print(f"added {arguments.username} as {arguments.role}")
    return 0


def _change(arguments: argparse.Namespace, store: LabelStore, access: Access) -> int:
    row = store.database.read(lambda c: people.find_login(c, arguments.username))
    if row is None:
        raise AccessError(f"there is no user {arguments.username!r}; see `user list`")
    if arguments.action == "password":
        password = read_password(arguments.password_file)
        changes = {
            "password_hash": access.hash_password(arguments.username, password),
            "failed_count": 0,
        }
    else:
        changes = {"is_disabled": arguments.action == "disable", "failed_count": 0}
    store.database.write(lambda c: people.change_person(c, row.person_id, changes))
    print(f"{arguments.action}: {arguments.username}")
    return 0


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def read_password(path: Path | None) -> str:
    """Returns a password from a file, the environment, a prompt or standard input."""
    if path is not None:
        return path.read_text("utf-8").splitlines()[0]
    from_environment = os.environ.get("PERIMETER_PORTAL_PASSWORD")
    if from_environment:
        return from_environment
    if sys.stdin.isatty():
        return getpass.getpass("Password: ")
    return sys.stdin.readline().rstrip("\n")
