"""Settings of the long-lived processes: TOML files, with environment variables on top.

Every key of a file is a field here; an unknown key is refused by name. A variable
`PERIMETER_<ROLE>_<KEY>` (role trainer, superlink, proxy or node) wins over the file.
Relative paths are taken from the settings file's folder.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from federation.errors import RequestInvalid


@dataclass(frozen=True)
class TrainerSettings:
    """A site's trainer.

    Attributes:
        label_store: Folder of the portal's label store.
        socket: Unix socket to listen on; at most 107 bytes long.
        device: auto (CUDA where present), cpu or cuda.
        thread_count: CPU threads for training.
        group_count_min: Smallest number of examples behind any sum that leaves the site.
        unlabelled_max: Most items without a label that training may look at where a campaign asks
            for it, the newest first; 0 for none.
        survey_samples_min: Surveys over fewer different samples than this, or than 30, are not
            answered; 0 for none at all.
    """

    label_store: Path
    socket: Path
    device: str = "auto"
    thread_count: int = 1
    group_count_min: int = 3
    unlabelled_max: int = 1500
    survey_samples_min: int = 30


@dataclass(frozen=True)
class SuperlinkSettings:
    """The Flower SuperLink on the centre's loopback, with its executor.

    Attributes:
        work: Folder for Flower's state, database and logs.
        address: host:port to listen on; a loopback address.
        certificate: PEM of the TLS server certificate.
        private_key: PEM of its key.
        authority: PEM of the certificate authority.
        nodes: Folder with one `<site>.<name>.pub` per federation node.
    """

    work: Path
    address: str
    certificate: Path
    private_key: Path
    authority: Path
    nodes: Path


@dataclass(frozen=True)
class ProxySettings:
    """The TLS proxy that publishes the fleet paths of the SuperLink and nothing else.

    Attributes:
        address: host:port that sites can reach.
        superlink: host:port of the SuperLink.
        certificate: PEM of the proxy's server certificate.
        private_key: PEM of its key.
        authority: PEM of the authority that signed the SuperLink's certificate.
        body_bytes_max: Larger requests are refused.
    """

    address: str
    superlink: str
    certificate: Path
    private_key: Path
    authority: Path
    body_bytes_max: int = 64 << 20


@dataclass(frozen=True)
class NodeSettings:
    """A site's Flower SuperNode with its executor.

    Attributes:
        work: Folder for Flower's state and logs.
        identity: Identity folder that `node enroll` wrote.
        proxy: host:port of the centre's proxy.
        trainer_socket: Unix socket of the site's trainer.
        runtime_address: host:port on loopback for the node's own executor; port 0 finds a free one.
    """

    work: Path
    identity: Path
    proxy: str
    trainer_socket: Path
    runtime_address: str = "127.0.0.1:0"


S = TypeVar("S", TrainerSettings, SuperlinkSettings, ProxySettings, NodeSettings)
_ROLES: dict[type[Any], str] = {
    TrainerSettings: "TRAINER",
    SuperlinkSettings: "SUPERLINK",
    ProxySettings: "PROXY",
    NodeSettings: "NODE",
}


def read_settings(kind: type[S], path: Path, environment: Mapping[str, str] | None = None) -> S:
    """Reads a settings file.

    Raises:
        RequestInvalid: The file is missing or not TOML, or a key is unknown, missing or of a
            wrong type. The message names the key.
    """
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RequestInvalid(f"settings file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RequestInvalid(f"settings file {path} is not TOML: {error}") from None
    names = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(values) - names)
    if unknown:
        known = ", ".join(sorted(names))
        raise RequestInvalid(f"{path}: unknown key {unknown[0]!r}; the keys are {known}")
    prefix = f"PERIMETER_{_ROLES[kind]}_"
    found = os.environ if environment is None else environment
    values |= {n: found[prefix + n.upper()] for n in names if prefix + n.upper() in found}
    return _typed(kind, values, path)


def _typed(kind: type[S], values: Mapping[str, Any], path: Path) -> S:
    hints = get_type_hints(kind)
    made: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name not in values:
            if field.default is dataclasses.MISSING:
                raise RequestInvalid(f"{path}: key {field.name!r} is missing")
            continue
        made[field.name] = _value(hints[field.name], values[field.name], field.name, path)
    return kind(**made)


def _value(wanted: type[Any], value: Any, name: str, path: Path) -> Any:
    if wanted is int:
        try:
            return int(str(value))
        except ValueError:
            raise RequestInvalid(f"{path}: key {name!r} must be a whole number") from None
    if not isinstance(value, str) or not value:
        raise RequestInvalid(f"{path}: key {name!r} must be text")
    return (path.parent / value).resolve() if wanted is Path else value


def split_address(address: str) -> tuple[str, int]:
    """Splits host:port.

    Raises:
        RequestInvalid: There is no port, or it is no number up to 65535.

    >>> split_address("127.0.0.1:8000")
    ('127.0.0.1', 8000)
    """
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535 or not host:
        raise RequestInvalid(f"{address!r} is not host:port")
    return host, int(port)
