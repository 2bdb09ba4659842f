"""The command line of the coordinator; each sub-command loads only what it needs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

CONFIG_ENVIRONMENT = "PERIMETER_COORDINATOR_CONFIG"


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all sub-commands."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, help="TOML file (docs/examples/coordinator.toml)")
    common.add_argument("--folder", type=Path, help="central folder, in place of the file's")
    common.add_argument("--json", action="store_true", help="answer as JSON")
    parser = argparse.ArgumentParser(
        prog="perimeter-coordinator", description="One label budget for all sites."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=[common])

    command("init", "make the folder, the keys and the database; a repeat changes nothing")
    command("serve", "serve sites and drive campaigns until stopped")
    command("status", "show campaigns, budget, sites and agents")
    command("audit", "list enrolments, revocations, campaigns and model versions")
    _add_join_token(command("join-token", "make a single-use token for one machine"))
    _add_machine(command("revoke", "deny a machine every further call"))
    campaign = commands.add_parser("campaign", help="create, show, pause and resume campaigns")
    _add_campaign(campaign, common)
    ledger = commands.add_parser("ledger", help="prove the ledger")
    actions = ledger.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("verify", help="replay entries, digests and allocations", parents=[common])
    return parser


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--site", required=True, help="site id, [a-z0-9-]")
    parser.add_argument("--role", required=True, choices=("agent", "portal", "node", "operator"))
    parser.add_argument("--name", required=True, help="name inside the site, [a-z0-9-]")


def _add_join_token(parser: argparse.ArgumentParser) -> None:
    _add_machine(parser)
    parser.add_argument(
        "--host",
        action="append",
        default=None,
        help="DNS name or IP address under which a portal serves; may be repeated",
    )
    parser.add_argument("--lifetime", type=int, help="seconds, in place of the setting's")


def _add_campaign(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="create from a TOML file", parents=[common])
    create.add_argument("file", type=Path, help="docs/examples/campaign.toml shows every key")
    actions.add_parser("list", help="list campaigns", parents=[common])
    for name, text in (
        ("show", "show one campaign with its history"),
        ("pause", "grant and train no more until resumed"),
        ("resume", "go on after a pause or a failed training"),
    ):
        action = actions.add_parser(name, help=text, parents=[common])
        action.add_argument("name")
        if name == "show":
            action.add_argument(
                "--price",
                type=float,
                help="advise to stop where a label brings less accuracy than this; default: the "
                "campaign's own price",
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a sub-command; exit status 2 for a mistake of the caller, 1 for a failed check."""
    arguments = build_parser().parse_args(argv)
    from coordinator import commands
    from coordinator.errors import CoordinatorError

    table: dict[str, Callable[[argparse.Namespace], int]] = {
        "init": commands.init,
        "serve": commands.serve,
        "status": commands.status,
        "audit": commands.audit,
        "join-token": commands.join_token,
        "revoke": commands.revoke,
        "campaign": commands.campaign,
        "ledger": commands.verify_ledger,
    }
    try:
        return table[arguments.command](arguments)
    except CoordinatorError as error:
        print(f"perimeter-coordinator: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
