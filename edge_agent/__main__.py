"""`perimeter-agent`: enroll, run, status, mask, egress, audit, retention, shred."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_agent.masking import commands as masking_commands


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands; imports nothing that a command needs."""
    parser = argparse.ArgumentParser(
        prog="perimeter-agent",
        description="Scores local samples, sends numbers only, and releases what a grant names, "
        "masked, to the portal of its own site.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_enroll(commands)
    run = commands.add_parser("run", help="run the daemon until it is stopped")
    _add_config(run)
    run.set_defaults(run="run")
    status = commands.add_parser("status", help="say how far the device is and what is wrong")
    _add_config(status)
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run="status")
    _add_egress(commands)
    _add_audit(commands)
    _add_deletions(commands)
    masking_commands.add_arguments(commands)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("agent.toml"),
        help="configuration file (default: agent.toml)",
    )


def _add_enroll(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    enroll = commands.add_parser("enroll", help="exchange a join token for an identity")
    _add_config(enroll)
    enroll.add_argument("token", help="the join token, or - to read it from standard input")
    enroll.set_defaults(run="enroll")


def _add_egress(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    egress = commands.add_parser("egress", help="read or check the ledger of what left the device")
    egress.add_argument("action", choices=("show", "verify"))
    _add_config(egress)
    egress.add_argument("--json", action="store_true", help="print JSON, one message a line")
    egress.add_argument("--last", type=int, default=20, metavar="N", help="show: only the last N")
    egress.add_argument("--full", action="store_true", help="show: every field of every message")
    egress.set_defaults(run="egress")


def _add_audit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    audit = commands.add_parser("audit", help="read or check the log of unmaskings and deletions")
    audit.add_argument("action", choices=("show", "verify"))
    _add_config(audit)
    audit.add_argument("--json", action="store_true", help="show: JSON, one record a line")
    audit.set_defaults(run="audit")


def _add_deletions(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    keep = commands.add_parser("retention", help="remove samples that are too old, now")
    _add_config(keep)
    keep.add_argument("--days", type=int, help="age limit, in place of the setting's")
    keep.set_defaults(run="retention")
    shred = commands.add_parser("shred", help="destroy one campaign's key and samples for good")
    shred.add_argument("campaign", help="name of the campaign")
    _add_config(shred)
    shred.add_argument("--yes", action="store_true", help="do it; there is no way back")
    shred.set_defaults(run="shred")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        0 when all went well, 1 when a check failed, 2 for a wrong configuration or state.
    """
    parsed = build_parser().parse_args(arguments)
    if callable(parsed.run):
        return int(parsed.run(parsed))
    from edge_agent import commands
    from edge_agent.errors import AgentError

    try:
        return commands.COMMANDS[parsed.run](parsed)
    except AgentError as error:
        sys.stderr.write(f"perimeter-agent: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
