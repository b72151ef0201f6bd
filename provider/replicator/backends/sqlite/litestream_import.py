"""Conversion of a litestream.yml to equivalent streams, and the settings that cannot be converted.

Keys have the meaning of litestream 0.5 (its cmd/litestream/main.go).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import takewhile
from os.path import normpath
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from replicator import authref
from replicator.backends.shared.identity import Identity, Look
from replicator.backends.sqlite import litestream_yaml
from replicator.backends.sqlite.daemon_config import DaemonSettings
from replicator.backends.sqlite.litestream_yaml import Setting
from replicator.backends.sqlite.replica import parse_replica
from replicator.capabilities import LITESTREAM
from replicator.errors import InvalidConfig, ReplicatorError, Unsupported
from replicator.model import Endpoint, EndpointKind, Stream, format_duration, parse_duration, slug
from replicator.option_types import OptionValue

_OPTIONS = LITESTREAM.options or {}
_AGENT = DaemonSettings(socket=Path())
_EACH_SECOND = timedelta(seconds=1)  # how often litestream uploads by default
_LEVELS = (timedelta(seconds=30), timedelta(minutes=5), timedelta(hours=1))
_OWN = ("socket", "logging", "shutdown-sync-timeout", "shutdown-sync-interval", "l0-retention-check-interval")
_EVERY_REPLICA = (  # allowed beside `dbs`, for every replica without its own
    *("bucket", "region", "endpoint", "force-path-style", "sync-interval"),
    *("access-key-id", "secret-access-key"),
)
_REPLICA = ("type", "name", "url", "path", *_EVERY_REPLICA)
_HARMLESS = {  # at litestream's default
    "auto-recover": "false",
    "skip-verify": "false",
    "sign-payload": "true",
    "sign-accept-encoding": "true",
    "require-content-md5": "true",
    "restore-if-db-not-exists": "false",
    "verify-compaction": "false",
}
_CAN_GO = {
    "addr": "the agent's litestream serves no metrics there",
    "mcp-addr": "the agent's litestream serves no MCP",
    "exec": "the agent starts no other program: let a service manager do that",
    "heartbeat-url": "the agent sends no heartbeat",
    "heartbeat-interval": "the agent sends no heartbeat",
    "validation": "the agent does not validate replicas by itself",
    "validation-interval": "the agent does not validate replicas by itself",
    "verify-compaction": "the agent does not verify compactions",
    "max-sync-wal-bytes": "the agent leaves it at litestream's default",
    "max-sync-ltx-files": "the agent leaves it at litestream's default",
    "part-size": "the agent leaves it at litestream's default",
    "concurrency": "the agent leaves it at litestream's default",
    "storage-class": "new objects would have the bucket's default class",
    "auto-recover": "the agent sees to it that litestream has nothing to recover from",
    "restore-if-db-not-exists": "the agent restores nothing by itself",
    "sign-accept-encoding": "the agent leaves it at litestream's default",
    "require-content-md5": "the agent leaves it at litestream's default",
}
"""Settings that a user may give up, and what the agent does instead."""

_CANNOT = {
    "dir": "a stream is one database; list each file with its path",
    "pattern": "a stream is one database; list each file with its path",
    "recursive": "a stream is one database; list each file with its path",
    "watch": "a stream is one database; list each file with its path",
    "meta-path": "the agent keeps litestream's files beside the database",
    "meta-dir": "the agent keeps litestream's files beside the database",
    "age": "litestream 0.5 encrypts nothing",
    "sse-customer-algorithm": "the agent cannot hand a key for encryption to litestream",
    "sse-customer-key": "the agent cannot hand a key for encryption to litestream",
    "sse-customer-key-path": "the agent cannot hand a key for encryption to litestream",
    "sse-kms-key-id": "the agent cannot hand a key for encryption to litestream; make it the bucket's default",
    "skip-verify": "the agent verifies certificates; put the authority's into SSL_CERT_FILE",
    "sign-payload": "the agent always signs",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The caller's settings for a conversion.

    :param environ: what litestream had in its environment.
    :param auth_ref: the identity for every bucket, instead of the file's.
    :param region: the region of every source.
    :param without: names of keys that the caller gives up.
    :param replay_window: the agent's.
    :param names: the agent's stream names, by database.
    """

    environ: Mapping[str, str]
    auth_ref: str | None = None
    region: str | None = None
    without: Collection[str] = ()
    replay_window: timedelta = _AGENT.replay_window
    names: Mapping[Path, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Takeover:
    """The result of a conversion.

    :param socket: where the daemon's control socket is, if it has one.
    :param own: settings of the daemon that the agent sets itself.
    :param needless: keys of `Wanted.without` that change nothing.
    """

    streams: tuple[Stream, ...]
    socket: Path | None
    own: tuple[str, ...]
    needless: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Refusal:
    setting: Setting
    reason: str
    can_go: bool = False

    @property
    def key(self) -> str:
        """Return the setting without its position: `snapshot.retention`, `part-size`."""
        return re.sub(r"^(dbs\[\d+\]\.)?(replicas?(\[\d+\])?\.)?", "", self.setting.path)


def read(file: Path, wanted: Wanted) -> Takeover:
    """Read a litestream.yml.

    Raise `InvalidConfig` where it cannot be read, and `Unsupported`, with each setting and its line, where a setting
    cannot be converted.
    """
    root = litestream_yaml.read(file).entries()
    reader = _Reader(wanted, root)
    streams = tuple(reader.streams())
    reader.check_daemon()
    if reader.refusals:
        raise _cannot(file, reader.refusals)
    if not streams:
        raise InvalidConfig(f"{file} names no database", fix="give the file that litestream reads")
    own = tuple(key for key in root if key in _OWN)
    needless = tuple(key for key in dict.fromkeys(wanted.without) if key not in reader.done_without)
    return Takeover(streams, reader.socket(), own, needless)


def _cannot(file: Path, refusals: list[_Refusal]) -> Unsupported:
    ordered = sorted(refusals, key=lambda refusal: refusal.setting.line)
    lines = [f"  line {item.setting.line}: {item.setting.path}: {item.reason}" for item in ordered]
    keys = dict.fromkeys(item.key for item in ordered if item.can_go)
    fix = "change the file and restart litestream with it, so that it runs as the agent would run it"
    if keys:
        fix += f"; what you can do without, leave out: {' '.join(f'--without {key}' for key in keys)}"
    return Unsupported("\n".join([f"not all of {file} can be carried over:", *lines]), fix=fix)


class _Reader:
    def __init__(self, wanted: Wanted, root: dict[str, Setting]) -> None:
        self.refusals: list[_Refusal] = []
        self.done_without: set[str] = set()
        self._wanted = wanted
        self._root = root
        self._names = set(wanted.names.values())
        self._look = Look()
        self._seen: list[tuple[Setting, tuple[Identity, Identity]]] = []

    # --- the daemon --------------------------------------------------------------------------------------------------

    def socket(self) -> Path | None:
        entries = self._root["socket"].entries() if "socket" in self._root else {}
        if "enabled" not in entries or not _is_true(entries["enabled"].raw):
            return None
        return Path(self._text(entries["path"])) if "path" in entries else Path("/var/run/litestream.sock")

    def check_daemon(self) -> None:
        """Check the settings beside `dbs`."""
        for key, setting in self._root.items():
            if key in ("dbs", *_OWN, *_EVERY_REPLICA):
                continue
            if key == "snapshot":
                self._check_snapshot(setting)
            elif key == "l0-retention":
                self._check_window(setting)
            elif key == "levels":
                found = [self._duration(item.entries()["interval"]) for item in setting.items()]
                self._refuse_unless(
                    found == list(_LEVELS), setting, "the agent compacts after 30 s, 5 min and 1 h", can_go=True
                )
            elif key == "retention":
                enabled = setting.entries().get("enabled")
                kept = enabled is None or _is_true(enabled.raw)
                self._refuse_unless(kept, setting, "the agent removes history that is older than a day", can_go=True)
            else:
                self._check_other(key, setting)

    def _check_snapshot(self, setting: Setting) -> None:
        agent = {"interval": _AGENT.snapshot_interval, "retention": _AGENT.snapshot_retention}
        for key, entry in setting.entries().items():
            if key not in agent:
                self._refuse(entry, "no setting of litestream 0.5")
                continue
            text = f"the agent's is {format_duration(agent[key])}"
            if key == "retention":
                text += ", and what is older would be removed"
            self._refuse_unless(self._duration(entry) == agent[key], entry, text, can_go=True)

    def _check_window(self, setting: Setting) -> None:
        window = self._duration(setting)
        self._refuse_unless(
            window <= self._wanted.replay_window,
            setting,
            f"the agent keeps single transactions for {format_duration(self._wanted.replay_window)}; start it with "
            f"--replay-window {format_duration(window)}",
            can_go=True,
        )

    def _check_other(self, key: str, setting: Setting) -> None:
        """Refuse a setting that no stream has, unless it is at litestream's default."""
        if key in _HARMLESS and setting.raw.lower() == _HARMLESS[key]:
            return
        if key in _CAN_GO:
            self._refuse(setting, _CAN_GO[key], can_go=True)
        else:
            self._refuse(setting, _CANNOT.get(key, "nothing of the backend litestream does that"))

    # --- databases ---------------------------------------------------------------------------------------------------

    def streams(self) -> Iterator[Stream]:
        """Yield one stream for each database without a refusal."""
        for entry in self._root["dbs"].items() if "dbs" in self._root else ():
            keys = entry.entries()
            before = len(self.refusals)
            for key, setting in keys.items():
                if key == "snapshot":
                    self._check_snapshot(setting)
                elif key not in ("path", "replica", "replicas", *_OPTIONS):
                    self._check_other(key, setting)
            path = self._database(entry, keys)
            replica = self._replica(entry, keys)
            options = {key: self._option(setting) for key, setting in keys.items() if key in _OPTIONS}
            found = self._destination(replica) if replica is not None else None
            if path is None or found is None or len(self.refusals) > before:
                continue
            destination, interval = found
            source = f"sqlite://{quote(str(path))}"
            if self._is_taken(entry, source, destination.uri):
                continue
            yield Stream(
                name=self._name(path),
                source=Endpoint(kind=EndpointKind.SQLITE, uri=source, region=self._wanted.region),
                destination=destination,
                checkpoint_interval=interval,
                options=options,
            )

    def _is_taken(self, entry: Setting, source: str, destination: str) -> bool:
        """Refuse an entry whose database or destination an earlier entry has, in any spelling."""
        ends = (self._look.at(source), self._look.at(destination))
        for other, (its_source, its_destination) in self._seen:
            where = f"{other.path} (line {other.line})"
            if ends[0].is_same(its_source):
                self._refuse(entry, f"is the same database as {where}, and a database has one stream")
                return True
            if ends[1].overlaps(its_destination):
                self._refuse(entry, f"replicates to where {where} does; two writers there leave neither restorable")
                return True
        self._seen.append((entry, ends))
        return False

    def _database(self, entry: Setting, keys: Mapping[str, Setting]) -> Path | None:
        if "path" not in keys:
            if "dir" not in keys:
                self._refuse(entry, "names no path")
            return None
        text = re.sub(r"^sqlite3?://", "", self._text(keys["path"]))
        if not text.startswith("/"):
            self._refuse(keys["path"], "depends on where and as whom litestream was started; write the absolute path")
            return None
        return Path(normpath(text))

    def _replica(self, entry: Setting, keys: Mapping[str, Setting]) -> dict[str, Setting] | None:
        """Return the settings of the one replica; the file's settings fill in missing ones."""
        several = keys["replicas"].items() if "replicas" in keys else []
        if ("replica" in keys) + len(several) != 1:
            self._refuse(keys.get("replicas", entry), "needs exactly one replica: a stream has one destination")
            return None
        own = (keys["replica"] if "replica" in keys else several[0]).entries()
        for key, setting in own.items():
            if key not in _REPLICA:
                self._check_other(key, setting)
        if "url" in own and "path" in own:
            self._refuse(own["path"], "stands beside url")
        return {**{key: setting for key, setting in self._root.items() if key in _EVERY_REPLICA}, **own}

    def _option(self, setting: Setting) -> OptionValue:
        try:
            return _OPTIONS[setting.path.rpartition(".")[2]].read(self._text(setting))
        except ValueError as error:
            raise setting.invalid(str(error)) from None

    def _name(self, path: Path) -> str:
        """Return the agent's name for a database that it has, else one derived from the file's name."""
        if (known := self._wanted.names.get(path)) is not None:
            return known
        digest = hashlib.sha256(str(path).encode()).hexdigest()[:7]
        stem, folder = (slug(text, "db", 40) for text in (path.stem, path.parent.name))
        for name in (stem, f"{folder[: 47 - len(stem)]}-{stem}", f"{stem[:40]}-{digest}"):
            if name not in self._names and re.fullmatch(r"[a-z][a-z0-9-]{0,47}", name):
                self._names.add(name)
                return name
        return f"db-{digest}"

    # --- the destination ---------------------------------------------------------------------------------------------

    def _destination(self, keys: Mapping[str, Setting]) -> tuple[Endpoint, timedelta | None] | None:
        url = self._text(keys["url"]) if "url" in keys else ""
        kind = urlsplit(url).scheme if url else self._text(keys["type"]) if "type" in keys else "file"
        where = keys.get("url") or keys.get("type") or next(iter(keys.values()), None)
        if where is None:
            return None
        if kind not in ("s3", "file"):
            self._refuse(where, f"the backend litestream moves to s3 and file, not to {kind}")
            return None
        before = len(self.refusals)
        uri = self._folder(url, keys, where) if kind == "file" else self._bucket(url, keys, where)
        auth = self._identity(keys) if kind == "s3" else None
        interval = self._duration(keys["sync-interval"]) if "sync-interval" in keys else _EACH_SECOND
        if uri is None or len(self.refusals) > before:
            return None
        try:
            place = parse_replica(uri)
            endpoint = Endpoint(kind=EndpointKind.S3, uri=place.url_for_engine(), auth_ref=auth)
        except ValueError as error:
            self._refuse(where, str(error).removeprefix("Value error, "))
            return None
        return endpoint, None if interval == _EACH_SECOND else interval

    def _folder(self, url: str, keys: Mapping[str, Setting], where: Setting) -> str | None:
        path = urlsplit(url).path if url else self._text(keys["path"]) if "path" in keys else ""
        if not path.startswith("/"):
            self._refuse(
                keys.get("path", where), "depends on where and as whom litestream was started; write the absolute path"
            )
            return None
        return f"file://{normpath(path)}"

    def _bucket(self, url: str, keys: Mapping[str, Setting], where: Setting) -> str | None:
        parts = urlsplit(url)
        if "@" in parts.netloc:
            self._refuse(where, "holds a user or a password")
            return None
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        text = {key: self._text(keys[key]) for key in ("bucket", "path", "region", "endpoint") if key in keys}
        bucket, prefix = (parts.netloc, parts.path) if url else (text.get("bucket", ""), text.get("path", ""))
        if not url and prefix != prefix.strip("/"):
            self._refuse(keys["path"], "begins or ends with '/', and so do its objects, which no URL can name")
            return None
        endpoint = text.get("endpoint") or query.pop("endpoint", None)
        region = text.get("region") or query.pop("region", None)
        styles = [query.pop(key) for key in ("forcePathStyle", "force-path-style") if key in query]
        if "force-path-style" in keys:
            styles.append(self._text(keys["force-path-style"]))
        if endpoint and any(not _is_true(style) for style in styles):
            self._refuse(where, "asks for another style than path style, which the agent uses at an endpoint")
        for name in set(query) - {"endpoint", "region"}:
            self._refuse(where, f"the parameter {name} cannot be carried over")
        if endpoint and "://" not in endpoint:
            self._refuse(keys.get("endpoint", where), "an endpoint needs its http:// or https://")
        settings = {"endpoint": endpoint, "region": region}
        return (
            f"s3://{bucket}/{prefix.strip('/')}?{urlencode({key: value for key, value in settings.items() if value})}"
        )

    def _identity(self, keys: Mapping[str, Setting]) -> str | None:
        """Return the reference to the key pair; refuse a value in the file."""
        if self._wanted.auth_ref is not None:
            return self._wanted.auth_ref
        pair = [keys[key] for key in ("access-key-id", "secret-access-key") if key in keys]
        if not pair:
            return None
        names = [setting.variable() for setting in pair]
        for setting, name in zip(pair, names, strict=True):
            if name is None:
                self._refuse(
                    setting,
                    "stands in clear; write a ${NAME} of the agent's environment, or put both keys into a file that "
                    "only the agent may read, and name it: --auth-ref file:///etc/replicator/s3.properties",
                )
        if len(pair) == 1:
            self._refuse(pair[0], "stands without the other half of the key pair")
        if len(pair) == 1 or None in names:
            return None
        key_id, secret = (str(name) for name in names)
        reference = _reference(key_id, secret)
        if reference is None:
            self._refuse(
                pair[0], f"{key_id} and {secret} have no common beginning, which env://NAME_* needs; rename one"
            )
        return reference

    # --- small parts -------------------------------------------------------------------------------------------------

    def _text(self, setting: Setting) -> str:
        return setting.expand(self._wanted.environ)

    def _duration(self, setting: Setting) -> timedelta:
        try:
            return parse_duration(self._text(setting))
        except ValueError as error:
            raise setting.invalid(str(error)) from None

    def _refuse_unless(self, holds: bool, setting: Setting, reason: str, *, can_go: bool = False) -> None:
        if not holds:
            self._refuse(setting, reason, can_go=can_go)

    def _refuse(self, setting: Setting, reason: str, *, can_go: bool = False) -> None:
        refusal = _Refusal(setting, reason, can_go)
        accepted = can_go and refusal.key in self._wanted.without
        if accepted:
            self.done_without.add(refusal.key)
        elif refusal not in self.refusals:  # settings beside `dbs` are met once per database
            self.refusals.append(refusal)


def _reference(key_id: str, secret: str) -> str | None:
    """Return `env://PREFIX_*` for two variables, or `None` where they share no prefix."""
    prefix = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(key_id, secret, strict=False)))
    prefix = prefix[: prefix.rfind("_") + 1] or prefix
    fields = {"accessKeyId": key_id[len(prefix) :], "secretAccessKey": secret[len(prefix) :]}
    plain = fields == {"accessKeyId": "ACCESS_KEY_ID", "secretAccessKey": "SECRET_ACCESS_KEY"}
    text = f"env://{prefix}*" + ("" if plain else "?" + urlencode(fields))
    try:
        authref.parse(text)
    except ReplicatorError:
        return None
    return text


def _is_true(text: str) -> bool:
    return text.lower() in ("true", "yes", "on")
