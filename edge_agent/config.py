"""What the operator of a device decides: one TOML file, overridden by environment variables.

Every key is documented in `docs/examples/agent.toml`. A key outside a table is overridden by
`PERIMETER_AGENT_<KEY>`, a key of a table by `PERIMETER_AGENT_<TABLE>_<KEY>`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_type_hints

import msgspec

from edge_agent.errors import ConfigError

ENVIRONMENT_PREFIX = "PERIMETER_AGENT_"
_TABLES = ("limits", "timing", "masking")


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; unknown keys are refused."""


class SourceConfig(Table, frozen=True):
    """Where samples of one campaign come from.

    Attributes:
        name: Unique name of the source, [a-z0-9-].
        campaign: Name of the campaign that its samples belong to.
        kind: text, image, series or record.
        type: folder (watched), file (grows) or push (others send samples in).
        path: Folder or file; unused by push.
        pattern: folder: shell pattern of file names.
        listen: push: `127.0.0.1:8790` or `unix:/path/to/socket`; loopback only.
        text_column: file: column that holds the text.
        exclude_columns: file: columns that a record leaves out, such as labels and row numbers.
        language: BCP 47 tag of the texts, for masking.
        columns: record: what may be shown of each column: keep, free-text (masked like a text),
            mask (replaced) or drop. A column without a rule is masked; without any rule nothing of
            the source is shown.
        has_text: image: True when images show text, which is then blanked where it is personal.
    """

    name: str
    campaign: str
    kind: Literal["text", "image", "series", "record"]
    type: Literal["folder", "file", "push"]
    path: str = ""
    pattern: str = "*"
    listen: str = ""
    text_column: str = "text"
    exclude_columns: tuple[str, ...] = ()
    language: str = "en"
    columns: dict[str, Literal["keep", "free-text", "mask", "drop"]] = {}
    has_text: bool = False

    def check(self) -> None:
        """Raises `ConfigError` when keys do not fit together."""
        if self.type == "push" and not self.listen.startswith(("unix:", "127.0.0.1:", "[::1]:")):
            raise ConfigError(
                f"source {self.name!r}: `listen` must be 127.0.0.1:PORT, [::1]:PORT or unix:PATH, "
                "so that only this device can push"
            )
        if self.type != "push" and not self.path:
            raise ConfigError(f"source {self.name!r}: set `path` to the {self.type} to read")
        if self.type == "file" and self.kind not in ("text", "record"):
            raise ConfigError(
                f"source {self.name!r}: a file carries text or record; "
                f"bring {self.kind} samples by folder or push"
            )
        if self.type == "folder" and self.kind == "record":
            raise ConfigError(
                f"source {self.name!r}: bring records by a growing file or by push, not by folder"
            )


class Limits(Table, frozen=True):
    """Limits on everything, with units.

    Attributes:
        sample_bytes_max: Largest sample that is taken, as it comes in.
        image_pixels_max: Largest image, width times height.
        queue_bytes_max: Size of the sealed queue on disk.
        when_full: wait (sources wait, nothing is lost) or drop-oldest (old ungranted samples go).
        poll_samples_max: Samples taken from a source in one turn.
        score_rows_max: Samples scored in one turn.
        minibatch_rows: Samples in one run of the model.
        candidate_batch_rows: Rows of a candidate batch on the wire, at most 10000.
        bundle_bytes_max: Largest model bundle.
        warm_up_seconds: Longest trial run of a new model.
        warm_up_memory_bytes: Address space of the trial run.
        refusal_rows_max: Refusals kept in the log.
        egress_file_bytes: Size at which the egress ledger starts its next file.
        nice: How far the daemon steps back behind other work, 0 to 19.
    """

    sample_bytes_max: int = 8 << 20
    image_pixels_max: int = 40_000_000
    queue_bytes_max: int = 4 << 30
    when_full: Literal["wait", "drop-oldest"] = "wait"
    poll_samples_max: int = 512
    score_rows_max: int = 256
    minibatch_rows: int = 32
    candidate_batch_rows: int = 9000
    bundle_bytes_max: int = 256 << 20
    warm_up_seconds: int = 60
    warm_up_memory_bytes: int = 4 << 30
    refusal_rows_max: int = 10_000
    egress_file_bytes: int = 64 << 20
    nice: int = 10

    def check(self) -> None:
        """Raises `ConfigError` for values outside their range."""
        if not 1 <= self.candidate_batch_rows <= 10_000:
            raise ConfigError("limits.candidate_batch_rows must lie between 1 and 10000")
        if not 0 <= self.nice <= 19:
            raise ConfigError("limits.nice must lie between 0 and 19")
        if self.sample_bytes_max > 8 << 20:
            raise ConfigError("limits.sample_bytes_max is at most 8388608, what a portal takes")
        for name, value in msgspec.structs.asdict(self).items():
            if isinstance(value, int) and value < 1 and name != "nice":
                raise ConfigError(f"limits.{name} must be at least 1")


class Timing(Table, frozen=True):
    """Rhythm of the daemon, in seconds.

    Attributes:
        tick_seconds: Pause between turns when there is nothing to do.
        settle_seconds: A file in a watched folder is read once it is this old.
        model_poll_seconds: Time between questions for campaigns and model versions.
        grant_wait_seconds: How long one question for grants stays open, 0 to 30.
        call_seconds: Deadline of an ordinary call.
        retry_first_seconds: Upper bound of the first back-off pause.
        retry_longest_seconds: Upper bound of every back-off pause.
        unmask_poll_seconds: Time between questions for approved unmaskings.
    """

    tick_seconds: float = 1.0
    settle_seconds: float = 1.0
    model_poll_seconds: float = 60.0
    grant_wait_seconds: int = 25
    call_seconds: float = 20.0
    retry_first_seconds: float = 1.0
    retry_longest_seconds: float = 300.0
    unmask_poll_seconds: float = 5.0

    def check(self) -> None:
        """Raises `ConfigError` for values outside their range."""
        if not 0 <= self.grant_wait_seconds <= 30:
            raise ConfigError("timing.grant_wait_seconds must lie between 0 and 30")
        for name, value in msgspec.structs.asdict(self).items():
            if value < 0:
                raise ConfigError(f"timing.{name} must not be negative")


class AgentConfig(Table, frozen=True):
    """The whole configuration.

    Attributes:
        state: Folder of everything that the agent keeps; made if missing, mode 0700.
        portal: `host:port` of the intake of the site's own portal.
        coordinator: `host:port`; empty takes the one that enrolment wrote.
        key_file: Key of the sealed queue; empty keeps it in the state folder. Keys of campaigns lie
            beside it, in `<key_file>.d/`.
        key_store: file, or keyring for the keyring of the operating system.
        unmask: Whether raw words behind a placeholder may be shown at the site's portal: refuse, or
            approved, for requests that a second person allowed there.
        retention_days: Age at which samples go, since settlement where a grant named one, else
            since arrival; 0 keeps them.
        sources: Where samples come from.
        masking: The site's masking policy; its keys are those of `masking.policy.MaskingPolicy`.
    """

    state: str
    portal: str = ""
    coordinator: str = ""
    key_file: str = ""
    key_store: Literal["file", "keyring"] = "file"
    unmask: Literal["refuse", "approved"] = "refuse"
    retention_days: int = 0
    sources: tuple[SourceConfig, ...] = ()
    limits: Limits = Limits()
    timing: Timing = Timing()
    masking: dict[str, Any] = {}

    @property
    def state_folder(self) -> Path:
        """The state folder as a path."""
        return Path(self.state)

    @property
    def key_path(self) -> Path:
        """The file that holds the key of the sealed queue."""
        return Path(self.key_file) if self.key_file else self.state_folder / "queue.key"

    def campaign_names(self) -> tuple[str, ...]:
        """Names of the campaigns that have a source here, in the order of the sources."""
        return tuple(dict.fromkeys(source.campaign for source in self.sources))

    def source(self, name: str) -> SourceConfig | None:
        """Returns the source of that name, or None."""
        return next((source for source in self.sources if source.name == name), None)


def load_config(path: Path, environment: Mapping[str, str]) -> AgentConfig:
    """Reads the file, applies the environment and checks everything.

    Relative paths are taken from the folder of the file.

    Raises:
        ConfigError: The file cannot be read, a key is unknown, a value is wrong.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; see docs/examples/agent.toml"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from None
    return parse_config(values, environment, base=path.resolve().parent)


def parse_config(
    values: Mapping[str, Any], environment: Mapping[str, str], *, base: Path
) -> AgentConfig:
    """Builds the configuration from decoded TOML and environment variables.

    Raises:
        ConfigError: A key is unknown or a value is wrong; names both and the remedy.

    >>> parse_config({"state": "s"}, {"PERIMETER_AGENT_PORTAL": "p:1"}, base=Path("/x")).portal
    'p:1'
    """
    merged = _with_environment(values, environment)
    try:
        config = msgspec.convert(merged, AgentConfig, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"configuration: {error}; every key is listed in docs/examples/agent.toml"
        ) from None
    config.limits.check()
    config.timing.check()
    if config.retention_days < 0:
        raise ConfigError("retention_days must not be negative; 0 keeps samples")
    _check_sources(config)
    return _with_absolute_paths(config, base)


def _with_environment(values: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    merged: dict[str, Any] = {k: dict(v) if k in _TABLES else v for k, v in values.items()}
    for variable in sorted(environment):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        key = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        table = next((name for name in _TABLES if key.startswith(f"{name}_")), None)
        holder = merged.setdefault(table, {}) if table else merged
        name = key.removeprefix(f"{table}_") if table else key
        holder[name] = _typed(environment[variable], table, name, variable)
    return merged


def _typed(raw: str, table: str | None, name: str, variable: str) -> Any:
    if table == "masking":
        return raw
    owner = {"limits": Limits, "timing": Timing}.get(table or "", AgentConfig)
    hints = get_type_hints(owner)
    if name not in hints or (table is None and name in (*_TABLES, "sources")):
        raise ConfigError(f"{variable} names no key; unset it or see docs/examples/agent.toml")
    try:
        return hints[name](raw) if hints[name] in (int, float) else raw
    except ValueError:
        raise ConfigError(f"{variable} must be a number, not {raw!r}") from None


def _check_sources(config: AgentConfig) -> None:
    names = [source.name for source in config.sources]
    for source in config.sources:
        if names.count(source.name) > 1:
            raise ConfigError(f"two sources are called {source.name!r}; names must differ")
        source.check()


def _with_absolute_paths(config: AgentConfig, base: Path) -> AgentConfig:
    def absolute(path: str) -> str:
        return str(base / path) if path else ""

    sources = tuple(
        msgspec.structs.replace(source, path=absolute(source.path)) for source in config.sources
    )
    return msgspec.structs.replace(
        config,
        state=absolute(config.state),
        key_file=absolute(config.key_file),
        sources=sources,
    )
