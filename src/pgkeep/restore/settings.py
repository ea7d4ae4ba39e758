"""The configuration of a restored server (pure): what recovery needs, and what keeps it off production's things.

1. postgresql.auto.conf is read after every other file, so what is decided here stands at its end.
2. Empty recovery targets come first and the one target last: a target that postgresql.conf still sets would otherwise
   end in "multiple recovery targets" (xlogrecovery.c, error_multiple_recovery_targets).
3. The timeline is always a number, but for a replica: 'latest' and 'current' depend on what else is archived.
4. Nothing is archived, no publisher is called, no standby is waited for, no job scheduler starts, no file outside the
   data directory is used; `adopt` is the way from there to production.
5. data_directory counts only in postgresql.conf itself (guc.c, SelectConfigFiles reads it before postgresql.auto.conf).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from pgkeep.format.manifest import ServerInfo
from pgkeep.pg.runtime import shell_command
from pgkeep.restore import conf
from pgkeep.restore.moment import show_moment
from pgkeep.restore.standby import Standby, settings_of
from pgkeep.restore.target import Target, TargetKind
from pgkeep.values.recovery import SPOOL_PREFIX

Settings = tuple[tuple[str, str], ...]
TARGETS: Final = (
    "recovery_target",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
    "recovery_target_name",
)
RECOVERY: Final = frozenset(
    {
        *TARGETS,
        "recovery_target_inclusive",
        "recovery_target_timeline",
        "recovery_target_action",
        "restore_command",
        "archive_cleanup_command",
        "recovery_end_command",
        "primary_conninfo",
        "primary_slot_name",
        "recovery_min_apply_delay",
        "promote_trigger_file",
        "recovery_prefetch",
    }
)
"""What belongs to one recovery: stripped from postgresql.auto.conf before it, and again after the promotion."""
_NAME_OF: Final = {
    TargetKind.TIME: "recovery_target_time",
    TargetKind.LSN: "recovery_target_lsn",
    TargetKind.XID: "recovery_target_xid",
    TargetKind.NAME: "recovery_target_name",
    TargetKind.IMMEDIATE: "recovery_target",
}
_CAN_EXCLUDE: Final = frozenset({TargetKind.TIME, TargetKind.LSN, TargetKind.XID})
_PATHS_TO_PIN: Final = {"hba_file": "pg_hba.conf", "ident_file": "pg_ident.conf"}
_MINIMUMS: Final = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)


class Action(Enum):
    """recovery_target_action: what the server does when it has reached the target."""

    PROMOTE = "promote"
    PAUSE = "pause"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the restored server listens: `directory` is its data directory, `listen` '' for the socket alone."""

    directory: str
    port: int
    socket_directory: str
    listen: str = ""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What is recovered to, and how WAL is fetched.

    `target` is what the server is told, with an explicit `timeline`; `fetch` are the words of `pgkeep --config ABS wal
    get`, `lineage` the absolute path of the RecoveryLineage, `spool` that of the directory for what is fetched ahead.
    """

    target: Target
    timeline: int
    action: Action
    fetch: tuple[str, ...]
    lineage: str
    spool: str
    standby: Standby | None = None
    """For a replica, which has no target."""
    looks_ahead: bool = True
    """False where WAL is missing behind the target: prefetching (xlogprefetcher.c, since 15) asks for it beforehand."""


def restore_command(fetch: Sequence[str], spool: str, lineage: str | None = None) -> str:
    """Out of the spool, else `... wal get %f %p --spool DIR --lineage FILE`.

    Quoted for sh, percent signs of its own doubled.  mv costs a tenth of what an interpreter's start does.
    """
    options = ["--spool", spool, *(() if lineage is None else ("--lineage", lineage))]
    take = f'mv -f {shell_command([spool])}/"%f" "%p" 2>/dev/null'
    return f'{take} || {shell_command(fetch)} "%f" "%p" {shell_command(options)}'


def recovery_end_command(spool: str) -> str:
    """Removes the spool when recovery has ended; renamed first, because somebody may still be filling it."""
    place = shell_command([spool])
    return f"test ! -d {place} || {{ mv -f {place} {place}.over && rm -rf {place}.over; }}"


def spool_path(directory: str, restore_id: str) -> str:
    """Where WAL is fetched ahead for the restore of that id into `directory`: see `values.recovery.SPOOL_PREFIX`."""
    return f"{directory}/pg_wal/{SPOOL_PREFIX}{restore_id}"


def recovery_settings(recovery: Recovery) -> Settings:
    """Empty targets, the one target, the timeline, and where WAL comes from."""
    lines = [(name, "") for name in TARGETS]
    lines += [(name, "") for name in ("archive_cleanup_command", "primary_conninfo", "primary_slot_name")]
    lines.append(("recovery_min_apply_delay", "0"))
    lineage = recovery.lineage if recovery.standby is None else None
    lines.append(("restore_command", restore_command(recovery.fetch, recovery.spool, lineage)))
    lines.append(("recovery_end_command", recovery_end_command(recovery.spool)))
    if recovery.standby is not None:
        return (*lines, *settings_of(recovery.standby))
    lines.append(("recovery_target_timeline", str(recovery.timeline)))
    if not recovery.looks_ahead:
        lines.append(("recovery_prefetch", "off"))
    target = recovery.target
    inclusive = target.inclusive or target.kind not in _CAN_EXCLUDE
    lines.append(("recovery_target_inclusive", "on" if inclusive else "off"))
    lines.append(("recovery_target_action", recovery.action.value))
    if target.kind is not TargetKind.LATEST:
        lines.append((_NAME_OF[target.kind], _value(target)))
    return tuple(lines)


def _value(target: Target) -> str:
    match target.kind:
        case TargetKind.TIME:
            assert target.time is not None
            return show_moment(target.time)
        case TargetKind.LSN:
            return str(target.lsn)
        case TargetKind.XID:
            return str(target.xid)
        case TargetKind.NAME:
            return str(target.name)
        case _:
            return "immediate"


def isolation_settings(place: Place, server: ServerInfo, major: int, effective: Mapping[str, str]) -> Settings:
    """What keeps the restored server to itself; `effective` are the values that its own files set, by name."""
    lines = [
        ("port", str(place.port)),
        ("listen_addresses", place.listen),
        ("unix_socket_directories", place.socket_directory),
        ("archive_mode", "off"),
        ("hot_standby", "on"),
        ("log_directory", "log"),
        ("synchronous_standby_names", ""),
        ("max_logical_replication_workers", "0"),
    ]
    lines += [(name, f"{place.directory}/{file}") for name, file in _PATHS_TO_PIN.items() if name in effective]
    lines += _minimums(server, effective)
    lines += _production_only(place.directory, server, major, effective)
    return tuple(lines)


def _minimums(server: ServerInfo, effective: Mapping[str, str]) -> list[tuple[str, str]]:
    """Recovery on a hot standby pauses for ever when these are lower than the WAL's (CheckRequiredParameterValues)."""
    lines = []
    for name in _MINIMUMS:
        needed: int = getattr(server, name)
        written = effective.get(name, "")
        lines.append((name, str(max(needed, int(written) if written.isdecimal() else 0))))
    return lines


def _production_only(
    directory: str, server: ServerInfo, major: int, effective: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Settings that name files, groups or work of the machine that the cluster comes from."""
    lines = []
    if _is_on(effective.get("ssl", "off")):
        lines.append(("ssl", "off"))  # its certificate and key lie outside, or belong to another host
    if effective.get("external_pid_file"):
        lines.append(("external_pid_file", f"{directory}/external.pid"))  # '' would be a file without a name
    if effective.get("unix_socket_group"):
        lines.append(("unix_socket_group", ""))
    if effective.get("huge_pages", "").lower() == "on":
        lines.append(("huge_pages", "try"))
    if effective.get("stats_temp_directory") and major < 15:
        lines.append(("stats_temp_directory", "pg_stat_tmp"))
    if effective.get("promote_trigger_file") and major < 16:
        lines.append(("promote_trigger_file", ""))
    libraries = [name.strip().strip('"') for name in server.shared_preload_libraries.split(",")]
    if "pg_cron" in libraries:
        lines.append(("cron.launch_active_jobs", "off"))
    return lines


def _is_on(value: str) -> bool:
    return value.lower() in {"on", "true", "yes", "1", "t", "tr", "tru", "y", "ye"}


@dataclass(frozen=True, slots=True)
class SourceConfiguration:
    """The configuration that a backup brings.

    `files` are postgresql.conf and what it includes, `main` the former's path; `auto` is the text of
    postgresql.auto.conf; `hba` and `ident` are set when they lay outside the data directory.  `data_directory` is the
    original one, absolute.
    """

    files: conf.ConfigurationFiles
    main: str
    data_directory: str
    auto: str = ""
    hba: str | None = None
    ident: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigurationPlan:
    """Files to write below the data directory, by relative path; None: to leave out.

    `written` are the settings at the end of postgresql.auto.conf, `warnings` sentences.
    """

    files: Mapping[str, str | None]
    written: Settings
    warnings: tuple[str, ...] = field(default=())


def plan_configuration(
    source: SourceConfiguration,
    server: ServerInfo,
    major: int,
    place: Place,
    recovery: Recovery,
    extra: Mapping[str, str],
) -> ConfigurationPlan:
    """Everything that is written in place of the backup's configuration.  `extra` settings beat all others."""
    flat = conf.flatten(source.files, source.main)
    auto_values = {line.name: line.value for line in conf.parse(source.auto) if line.name}
    effective = {**flat.values, **auto_values}
    written = (
        *recovery_settings(recovery),
        *(pair for pair in isolation_settings(place, server, major, effective) if pair[0] not in extra),
        *extra.items(),
    )
    names = frozenset(name for name, _ in written) | RECOVERY
    files: dict[str, str | None] = {
        "postgresql.auto.conf": conf.without(source.auto, names) + conf.spell(written),
        "recovery.signal": "" if recovery.standby is None else None,
        "standby.signal": None if recovery.standby is None else "",
    }
    if (main := _main_file(source, flat, place)) is not None:
        files["postgresql.conf"] = main
    for name, content in (("pg_hba.conf", source.hba), ("pg_ident.conf", source.ident)):
        if content is not None:
            files[name] = content
    return ConfigurationPlan(files, written, tuple(_warnings(flat)))


def _main_file(source: SourceConfiguration, flat: conf.Flattened, place: Place) -> str | None:
    """postgresql.conf, or None when the backup's own serves as it is.

    Includes are written out as soon as one of them lay outside the data directory: there, they would be production's.
    """
    paths = (source.main, *flat.includes, *flat.missing)
    inside = all(path.startswith(source.data_directory.rstrip("/") + "/") for path in paths)
    absolute = any(
        line.value.startswith("/") for line in conf.parse(source.files.contents[source.main])
        if line.name in conf.INCLUDES
    )  # fmt: skip
    moved = "data_directory" in flat.values
    text = source.files.contents[source.main] if inside and not absolute else flat.text
    if moved:
        text = f"{text.rstrip()}\n{conf.spell([('data_directory', place.directory)])}"
    return None if text == source.files.contents[source.main] and inside else text


def _warnings(flat: conf.Flattened) -> list[str]:
    return [f"postgresql.conf includes {path}, which the backup does not hold; it is left out" for path in flat.missing]


def cleanup_after_promotion(auto: str) -> str:
    """postgresql.auto.conf without the settings of the recovery that is over; what keeps the server apart stays."""
    return conf.without(auto, RECOVERY)
