"""The command `perimeter-federation`. Heavy imports happen inside the sub-commands."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from federation.errors import FederationError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one sub-command and returns the exit status."""
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        parsed.run(parsed)
    except FederationError as error:
        print(f"perimeter-federation: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="perimeter-federation",
        description="Train one model together: nothing leaves a site but model updates and sums.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    processes = {
        "trainer": (_trainer, "a site's trainer, which reads its label store"),
        "supernode": (_supernode, "a site's Flower node, which calls the centre"),
        "superlink": (_superlink, "the centre's Flower SuperLink, on loopback"),
        "proxy": (_proxy, "the TLS proxy that publishes the fleet paths of the SuperLink"),
    }
    for name, (action, text) in processes.items():
        command = commands.add_parser(name, help=text, description=f"Run {text}.")
        command.add_argument("config", type=Path, help="settings file (TOML)")
        command.set_defaults(run=action)
    runs = {
        "train": (_train, "carry a training run to a signed bundle"),
        "init-model": (_init_model, "make and sign a campaign's first, untrained version"),
    }
    for name, (action, text) in runs.items():
        command = commands.add_parser(name, help=text, description=f"{text.capitalize()}.")
        command.add_argument("request", type=Path, nargs="?", help="request.json of the run")
        command.add_argument("--request", dest="request_option", type=Path, help=argparse.SUPPRESS)
        command.set_defaults(run=action)
    _add_node(commands)
    return parser


def _add_node(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    node = commands.add_parser("node", help="a site's node identity").add_subparsers(
        required=True, metavar="COMMAND"
    )
    command = node.add_parser("enroll", help="make this node's keys and get its certificate")
    command.add_argument("token", help="join token, or - to read it from standard input")
    command.add_argument(
        "--identity", type=Path, default=Path("identity"), help="folder for keys and certificates"
    )
    command.set_defaults(run=_enroll)


def _request_path(parsed: argparse.Namespace) -> Path:
    path = parsed.request or parsed.request_option
    if path is None:
        raise FederationError("name the run's request.json")
    return Path(path)


def _trainer(parsed: argparse.Namespace) -> None:
    from federation.settings import TrainerSettings, read_settings

    settings = read_settings(TrainerSettings, parsed.config)
    from federation import trainer_service

    trainer_service.serve(settings)


def _supernode(parsed: argparse.Namespace) -> None:
    from federation import supernode
    from federation.settings import NodeSettings, read_settings

    supernode.run(read_settings(NodeSettings, parsed.config))


def _superlink(parsed: argparse.Namespace) -> None:
    from federation.settings import SuperlinkSettings, read_settings

    settings = read_settings(SuperlinkSettings, parsed.config)
    from federation import superlink

    superlink.run(settings)


def _proxy(parsed: argparse.Namespace) -> None:
    from federation.settings import ProxySettings, read_settings

    settings = read_settings(ProxySettings, parsed.config)
    from federation import proxy

    proxy.run(settings)


def _train(parsed: argparse.Namespace) -> None:
    from federation import train_command

    train_command.train(_request_path(parsed))


def _init_model(parsed: argparse.Namespace) -> None:
    from federation.publish import publish_untrained
    from federation.requests import read_request

    request, fit = read_request(_request_path(parsed)), None
    if request.surveys_first:
        # Only such a run asks the sites; others need nothing of Flower, not even its import.
        from federation.first_survey import first_fit_of

        fit = first_fit_of(request)
    publish_untrained(request, fit)


def _enroll(parsed: argparse.Namespace) -> None:
    from federation import enrollment

    token = sys.stdin.readline().strip() if parsed.token == "-" else parsed.token  # noqa: S105
    print(f"enrolled as {enrollment.enroll(token, parsed.identity)}")


if __name__ == "__main__":
    sys.exit(main())
