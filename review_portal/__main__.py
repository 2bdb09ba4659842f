"""`perimeter-portal`: the command of a site's review portal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

COMMANDS = (
    ("enroll", "enroll", "get this portal's certificate with a join token"),
    ("init", "init", "make the folder, the label store and the portal's own key"),
    ("serve", "serve", "run pages, intake and the link to the coordinator"),
    ("sync", "sync", "fetch campaigns and send outcomes once"),
    ("user", "user", "add people, list them, lock them out"),
    ("campaign", "campaign", "list campaigns, hold them, change what experts see"),
    ("schema", "schema", "list versions of a campaign's classes, say what became of each"),
    ("import", "import_labels", "take labeled or unlabeled items from a file"),
    ("export", "export_labels", "write labels to a file that other tools read"),
    ("egress", "egress", "show, verify or export what left this site"),
    ("audit", "audit", "verify the audit log"),
    ("retention", "retention", "remove content that is older than the age limit"),
    ("shred", "shred", "delete a campaign's key, and with it all of its content"),
)


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Builds the parser; only the module of the sub-command that is asked for is imported."""
    parser = argparse.ArgumentParser(
        prog="perimeter-portal", description="The site's portal where experts label masked items."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, metavar="FILE", help="settings (docs/examples/portal.toml)"
    )
    common.add_argument("--folder", type=Path, help="state folder, in place of the setting's")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module, summary in COMMANDS:
        subparser = subparsers.add_parser(name, help=summary, description=summary, parents=[common])
        if name in argv[:1]:
            import_module(f"review_portal.commands.{module}").add_arguments(subparser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0, or 1 after printing what went wrong and what to do."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = build_parser(given).parse_args(given)
    module = {name: module for name, module, _ in COMMANDS}[arguments.command]
    from review_portal.errors import PortalError

    try:
        code: int = import_module(f"review_portal.commands.{module}").run(arguments)
    except PortalError as error:
        print(f"perimeter-portal: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
