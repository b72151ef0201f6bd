"""References to secrets (`authRef`): read them, resolve them in memory, and keep their values out of text.

    authRef = ["ref+"] scheme "://" path ["?" field "=" name *("&" field "=" name)] ["#" ["/"] key]

A reference is not a secret and appears in plans; the value that it names never does. A scheme is one row of `_SCHEMES`.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import re
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, NoReturn
from urllib.parse import quote, quote_plus

from replicator.errors import SecretExposed, SecretNotFound, SecretSyntax

FIELDS = ("username", "password", "accessKeyId", "secretAccessKey", "sessionToken", "token")
"""The canonical fields of a secret; a store may call them otherwise (`?accessKeyId=AKID`)."""

_IDS = ("username", "accessKeyId")
_SECRETS = tuple(name for name in FIELDS if name not in _IDS)
_SECRET_WORDS = (
    "secretaccesskey",
    "secretkey",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "token",
    "privatekey",
)
"""Suffixes of the names of entries that hold a secret rather than an id."""

_PLANNED = ("k8s", "kms", "infisical", "vault", "awssecrets", "gcpsecrets", "azurekeyvault", "sops")
_GRAMMAR = re.compile(r"(?:ref\+)?(?P<scheme>\w+)://(?P<path>[^?#]*)(?:\?(?P<params>[^#]*))?(?:#/?(?P<key>.*))?")
EXAMPLES = "env://SHOP_*, env://PG_PASSWORD, file:///run/secrets/s3.json or file:///run/secrets/pg.json#password"
_MARK = "[redacted]"
_MAX_FILE = 1 << 20
_MIN_VALUE = 4
_ABSENT = os.strerror(errno.ENOENT)
_ABSOLUTE = re.compile(r"/[^/%](?:[^%]*[^/%])?")


@dataclass(frozen=True, slots=True)
class AuthRef:
    """A parsed reference.

    :param path: as written after `scheme://`, with its case.
    :param key: the single value that it names (for `env` the variable itself), or None for a bundle of several fields.
    :param fields: canonical field → its name in the bundle, where the reference renames it.
    :param text: the reference as written in the program.
    """

    scheme: str
    path: str
    key: str | None
    fields: Mapping[str, str] = field(hash=False)
    text: str

    def entry(self, name: str) -> str:
        """Return the store's name for a canonical field: `PG_MAIN_SECRET_ACCESS_KEY` for `secretAccessKey`."""
        return self.key if self.key is not None else _SCHEMES[self.scheme].entry(self, name)


class Reader(NamedTuple):
    """The process that resolves references, as its users call it.

    :param restart: how it gets another environment, as a sentence that follows another one.
    """

    name: str
    restart: str


PULUMI = Reader("pulumi", "")
COMMAND = Reader("this command", "")
AGENT = Reader(
    "the agent",
    ". A new variable needs a restart of the agent: systemctl restart, or replicator agent stop and replicator agent "
    "start",
)


class _Unreadable(Exception):
    """A file of a reference cannot be read.

    :param form: the expected content.
    """

    def __init__(self, path: object, problem: str, form: str) -> None:
        super().__init__(path, problem, form)
        self.path, self.problem, self.form = path, problem, form


class _Scheme(NamedTuple):
    """The syntax of one scheme's references, and how to read them.

    :param path: matches the whole path; a group `key` means that the path itself names one value.
    :param name: matches a renamed field, and a `#key`.
    :param keyed: whether `#key` may follow.
    :param expects: the expected form, for people.
    :param missing: the message for an entry that does not exist, with {name} and {path}.
    :param provide: how a person provides entries, with {names}, {path}, {reader}, {host} and {restart}.
    :param entry: the store's name for a field of a bundle.
    :param read: return entries by name, including the requested ones that exist; may block; raises _Unreadable.
    """

    path: re.Pattern[str]
    name: re.Pattern[str]
    keyed: bool
    expects: str
    missing: str
    provide: str
    entry: Callable[[AuthRef, str], str]
    read: Callable[[AuthRef, Sequence[str], Mapping[str, str]], Mapping[str, str]]


def parse(text: str) -> AuthRef:
    """Read a reference.

    :raises SecretSyntax: the text is not a reference. The message never repeats it: it may be a pasted password.
    :raises SecretExposed: it names a secret where an id belongs.
    """
    if not text.isprintable():
        raise _refused("holds a control character, or another one that cannot be printed")
    if "${" in text:
        raise _refused("holds ${; write the reference itself, each engine gets its own placeholder for it")
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise _refused("is not a reference to a secret")
    word, path, params, key = match.group("scheme", "path", "params", "key")
    if word not in _SCHEMES:
        which = f"has the scheme {word}, which is planned" if word in _PLANNED else "has a scheme that is unknown"
        raise _refused(f"{which}; {_listed(_SCHEMES)} work in this release")
    scheme = _SCHEMES[word]
    if "@" in path.partition("/")[0]:
        raise _refused("holds a user or a password before @, which would stand in the state")
    found = scheme.path.fullmatch(path)
    if found is None:
        raise _refused(f"must look like {scheme.expects}")
    if key is not None and not (scheme.keyed and scheme.name.fullmatch(key)):
        raise _refused(f"has a # part that does not fit: it must look like {scheme.expects}")
    key = key if key is not None else found.groupdict().get("key")
    fields = {} if params is None else dict(_renames(params, word))
    if fields and key is not None:
        raise _refused("names one value, so there are no fields to rename")
    ref = AuthRef(word, path, key, fields, text)
    for name in _IDS:
        if name in fields and _names_a_secret(ref, name):
            raise _exposed(name)
    return ref


def _names_a_secret(ref: AuthRef, field: str) -> bool:
    """Tell whether, judging by names, a field that is sent in clear text is read from a secret's entry."""
    entry = ref.entry(field)
    bare = re.sub(r"[^a-z0-9]", "", entry.lower())
    return bare.endswith(_SECRET_WORDS) or entry in {ref.entry(name) for name in _SECRETS}


def _exposed(name: str) -> SecretExposed:
    return SecretExposed(
        f"the reference reads {name}, which is sent in clear, from the entry of a secret",
        fix=f"name the entry that holds the {name}",
    )


def _refused(problem: str) -> SecretSyntax:
    return SecretSyntax(f"the reference {problem}", fix=f"name the secret, as in {EXAMPLES}; never write it here")


def _listed(words: Sequence[str] | Mapping[str, object]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _renames(params: str, word: str) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for param in params.split("&"):
        canonical, _, name = param.partition("=")
        if canonical == "as":
            raise _refused("has the parameter as=, which nothing reads: the agent resolves secrets itself")
        if canonical not in FIELDS:
            raise _refused(f"has a parameter that is none of the fields {_listed(FIELDS)}")
        if canonical in seen:
            raise _refused(f"renames the field {canonical} twice")
        if not _SCHEMES[word].name.fullmatch(name):
            raise _refused(f"renames the field {canonical} to something that is not a name in {word}")
        seen.add(canonical)
        yield canonical, name


def resolve(
    ref: AuthRef,
    fields: Sequence[str],
    *,
    required: Sequence[str],
    environ: Mapping[str, str],
    reader: Reader = PULUMI,
) -> dict[str, str]:
    """Return the secret's values by canonical field. May read a file: on an event loop, run it in a thread.

    A reference to one value gives the password-like field, the last of `required`. One final newline is removed.

    :param fields: the members of `FIELDS` to look for.
    :param required: the fields that must exist; at least one.
    :param environ: the environment that `env` reads.
    :param reader: this process, for the fix of an error.
    :raises SecretNotFound: a file cannot be read, or a required value is missing or empty. Names the variable or key,
        never a value.
    :raises SecretExposed: an id has the value of a secret.
    """
    if not required or not set(required) <= set(fields) <= set(FIELDS):
        raise ValueError("required must be some of fields, and fields some of FIELDS")
    refuse_one_value(ref, required)
    scheme = _SCHEMES[ref.scheme]
    wanted = {name: ref.entry(name) for name in (fields if ref.key is None else required)}
    host = socket.gethostname()
    try:
        entries = scheme.read(ref, [*wanted.values()], environ)
    except _Unreadable as error:
        raise SecretNotFound(
            f"the secret file {error.path} cannot be read: {error.problem}",
            fix=f"let {reader.name} on {host} read {error.form} at {error.path}",
        ) from None
    values = {name: value for name, entry in wanted.items() if (value := _usable(entries.get(entry)))}
    if missing := [wanted[name] for name in required if name not in values]:
        raise SecretNotFound(
            "; ".join(scheme.missing.format(name=name, path=ref.path) for name in missing),
            fix=scheme.provide.format(
                names=_listed(missing), path=ref.path, reader=reader.name, host=host, restart=reader.restart
            ),
        )
    if ref.fields:
        _refuse_a_secret_as_id(ref, values, environ)
    return values


def _refuse_a_secret_as_id(ref: AuthRef, values: Mapping[str, str], environ: Mapping[str, str]) -> None:
    """Raise if a renamed id has the value of any secret in the same bundle."""
    usual = {name: _SCHEMES[ref.scheme].entry(replace(ref, fields={}), name) for name in _SECRETS}
    try:
        entries = _SCHEMES[ref.scheme].read(ref, [*usual.values()], environ)
    except _Unreadable:  # such an entry cannot be sent either
        entries = {}
    secrets = {_usable(entries.get(entry)) for entry in usual.values()}
    secrets |= {value for name, value in values.items() if name in _SECRETS}
    for name in _IDS:
        if name in ref.fields and values.get(name) in secrets - {None}:
            raise _exposed(name)


def refuse_one_value(ref: AuthRef, required: Sequence[str]) -> None:
    """Raise `SecretNotFound` if a reference names one value and more are required. Reads nothing."""
    if ref.key is not None and len(required) > 1:
        raise SecretNotFound(
            f"{ref.text} names one value, but {_listed(required)} are needed",
            fix="name a bundle that holds all of them, as in env://SHOP_* or file:///run/secrets/s3.json",
        )


def _usable(value: str | None) -> str | None:
    """Return the value without its final newline, or None if no engine could use it."""
    if value is None or any("\ud800" <= char <= "\udfff" for char in value):
        return None
    return value.removesuffix("\n").removesuffix("\r") if value.endswith("\n") else value


def _env_entry(ref: AuthRef, name: str) -> str:
    return ref.path.removesuffix("*") + ref.fields.get(name, re.sub(r"(?=[A-Z])", "_", name).upper())


def _entry_as_written(ref: AuthRef, name: str) -> str:
    return ref.fields.get(name, name)


def _read_file(ref: AuthRef, names: Sequence[str], environ: Mapping[str, str]) -> Mapping[str, str]:
    raw, problem = _content(Path(ref.path))
    entries = None if problem else _entries(raw)
    if entries is None:
        raise _Unreadable(
            ref.path,
            problem or "it is neither a JSON object nor a properties file in UTF-8",
            "a file of key=value lines or a JSON object",
        )
    return entries


def _read_dir(ref: AuthRef, names: Sequence[str], environ: Mapping[str, str]) -> Mapping[str, str]:
    found = {}
    for name in names:
        path = Path(ref.path) / name
        raw, problem = _content(path)
        if problem == _ABSENT:
            continue
        value = None if problem else _decoded(raw)
        if value is None:
            raise _Unreadable(path, problem or "it holds no UTF-8 text", "a file that holds the value alone")
        found[name] = value
    return found


def _content(path: Path) -> tuple[bytes, str]:
    """Return a file's content and the reason why it cannot be read, empty if it can."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            return b"", "it is not a regular file"
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE + 1)
    except OSError as error:
        return b"", error.strerror or type(error).__name__
    return raw, "it is larger than 1 MiB" if len(raw) > _MAX_FILE else ""


def _decoded(raw: bytes) -> str | None:
    """Return None rather than raise: the decoder's exception carries the whole content."""
    try:
        return raw.decode()
    except ValueError:
        return None


def _entries(raw: bytes) -> dict[str, str] | None:
    """Return None rather than raise: the decoders' exceptions carry the whole content.

    Kafka's FileConfigProvider reads the same file as java.util.Properties.
    """
    import javaproperties

    try:
        text = raw.decode("utf-8-sig")
        if text.lstrip().startswith("{"):
            data = json.loads(text)
        else:
            data = javaproperties.loads(text)
            "".join(data.values()).encode()  # raises where half of a surrogate pair is escaped
    except (ValueError, RecursionError):
        return None
    return {key: value for key, value in data.items() if isinstance(value, str)}


_SCHEMES: dict[str, _Scheme] = {
    "env": _Scheme(
        path=re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*|(?P<key>[A-Za-z_][A-Za-z0-9_]*)"),
        name=re.compile(r"[A-Za-z0-9_]+"),
        keyed=False,
        expects="env://NAME for one variable, or env://PREFIX_* for several (letters, digits and _)",
        missing="the environment variable {name} is not set, or holds no UTF-8 text",
        provide="set {names} in the environment of {reader} on {host}, or correct the reference{restart}",
        entry=_env_entry,
        read=lambda ref, names, environ: environ,
    ),
    "file": _Scheme(
        path=_ABSOLUTE,
        name=re.compile(r"[A-Za-z0-9_.-]+"),
        keyed=True,
        expects="file:///absolute/path (without %), or file:///absolute/path#key for one of its values",
        missing="the file {path} has no text under the key {name}",
        provide="add {names} to {path} on {host}, or correct the reference",
        entry=_entry_as_written,
        read=_read_file,
    ),
    "dir": _Scheme(
        path=_ABSOLUTE,
        name=re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*"),
        keyed=True,
        expects="dir:///absolute/path (without %), or dir:///absolute/path#name for one of its files",
        missing="the directory {path} has no file {name}, or nothing is in it",
        provide="write {names} in {path} on {host}, each with the value alone, or correct the reference",
        entry=_entry_as_written,
        read=_read_dir,
    ),
}


class Redactor:
    """Replaces secret values by `[redacted]` in text for people, logs or state.

    It finds a value verbatim and as URLs, JSON, YAML, Go, Python and base64 write it. The same holds for each line of a
    value, since engines log line by line. Values shorter than 4 characters are kept: they occur in ordinary words, and
    the positions of replacements would reveal the value. Threads may share an instance.
    """

    def __init__(self) -> None:
        self._forms: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Redactor holds secret values and is never pickled")

    def add(self, value: str) -> None:
        """Hide a value from now on."""
        pieces = {value, *(line.strip() for line in value.splitlines())}
        forms = {form for piece in pieces if len(piece) >= _MIN_VALUE for form in _forms(piece)}
        with self._lock:
            self._forms |= forms

    def hides(self, text: str) -> bool:
        """Tell whether the whole text is a hidden value, or one of its forms."""
        return text in self._forms

    def __call__(self, text: str) -> str:
        """Return the text with every form of every value replaced; overlapping forms are replaced as one."""
        parts: list[str] = []
        end = 0
        for start, stop in sorted(self._spans(text)):
            if start > end or not parts:
                parts += [text[end:start], _MARK]
            end = max(end, stop)
        return "".join([*parts, text[end:]]) if parts else text

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        for form in self._forms:
            start = text.find(form)
            while start >= 0:
                yield start, start + len(form)
                start = text.find(form, start + 1)


def _forms(value: str) -> set[str]:
    """Return the forms in which programs write the value into text; quoted text may be quoted once more."""
    once = {value, *_quoted(value), *_url_quoted(value), value.replace("'", "''")}
    return once | {twice for form in once for twice in _quoted(form)} | set(_base64(value))


# Unescaped characters: Python's quote, all escaped, Go's userinfo, path segment and path, JavaScript's component.
_URL_SAFE = ("/", "", "$&+,;=", "$&+:=@", "$&+,/:;=@", "!'()*")


def _url_quoted(value: str) -> Iterator[str]:
    forms = [quote(value, safe=safe, errors="surrogatepass") for safe in _URL_SAFE]
    for form in (*forms, quote_plus(value, errors="surrogatepass")):
        yield form
        yield re.sub("%..", lambda match: match[0].lower(), form)


def _quoted(value: str) -> Iterator[str]:
    for ascii_only in (True, False):
        body = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield body
        yield re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", body)  # Go's encoding/json
    yield "".join(map(_go_quoted, value))
    both = repr(value + "'\"")[1:-4]  # Python escapes ' only in a text that holds both quotes
    yield both
    yield both.replace(r"\'", "'")


_GO = {char: f"\\{short}" for char, short in zip('\a\b\f\n\r\t\v"\\', 'abfnrtv"\\', strict=True)}


def _go_quoted(char: str) -> str:
    """Return a character as Go's strconv.Quote (%q) writes it."""
    if char in _GO or char.isprintable():
        return _GO.get(char, char)
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _base64(value: str) -> Iterator[str]:
    """Yield the value's base64 as it appears in any longer text: for three alignments, inside and at the end."""
    raw = value.encode("utf-8", "surrogatepass")
    for before, shared in enumerate((0, 2, 3)):  # characters that include bits of the bytes before the value
        whole = base64.b64encode(bytes(before) + raw).decode()
        alone = 8 * (before + len(raw)) // 6  # the next character may include bits of the bytes after it
        for form in (whole[shared:], whole[shared:].rstrip("="), whole[shared:alone]):
            yield form
            yield form.translate({ord("+"): "-", ord("/"): "_"})
