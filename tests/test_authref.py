"""References to secrets: what is read, what is refused, what is found, and what never shows."""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from replicator.authref import AGENT, FIELDS, PULUMI, Reader, Redactor, parse, resolve
from replicator.errors import ReplicatorError, SecretExposed, SecretNotFound, SecretSyntax

PROVIDER = Path(__file__).parents[1] / "provider"
MARK = "[redacted]"
CANARY = "cana'ry\"$HOME${X}\\\nsecond <line> & 50%+é"
S3 = ("accessKeyId", "secretAccessKey", "sessionToken")
S3_REQUIRED = ("accessKeyId", "secretAccessKey")

GOOD = {
    "env://PG_PASSWORD": ("env", "PG_PASSWORD", "PG_PASSWORD", {}),
    "env://_p1": ("env", "_p1", "_p1", {}),
    "ref+env://PG_MAIN_*": ("env", "PG_MAIN_*", None, {}),
    "env://PG*?username=USER": ("env", "PG*", None, {"username": "USER"}),
    "env://S3_*?accessKeyId=AKID&secretAccessKey=SAK": (
        "env",
        "S3_*",
        None,
        {"accessKeyId": "AKID", "secretAccessKey": "SAK"},
    ),
    "file:///run/Secrets/pg.properties": ("file", "/run/Secrets/pg.properties", None, {}),
    "file:///run/se crets/é@home/pg:1": ("file", "/run/se crets/é@home/pg:1", None, {}),
    "file:///p/pg.json#password": ("file", "/p/pg.json", "password", {}),
    "ref+file:///p/pg.json#/db.pass-word": ("file", "/p/pg.json", "db.pass-word", {}),
    "file:///p/s3?accessKeyId=aws.id": ("file", "/p/s3", None, {"accessKeyId": "aws.id"}),
    "dir:///run/secrets/pg": ("dir", "/run/secrets/pg", None, {}),
    "dir:///run/secrets/pg?username=tls.user": ("dir", "/run/secrets/pg", None, {"username": "tls.user"}),
    "ref+dir:///run/secrets/pg#/pass-word": ("dir", "/run/secrets/pg", "pass-word", {}),
}


@pytest.mark.parametrize("text", GOOD)
def test_a_reference_is_read_with_its_case(text: str) -> None:
    scheme, path, key, fields = GOOD[text]
    ref = parse(text)
    assert (ref.scheme, ref.path, ref.key, ref.fields, ref.text) == (scheme, path, key, fields, text)
    assert hash(ref) == hash(parse(text))


BAD = {
    "": "not a reference",
    "hunter2hunter2": "not a reference",
    "PG_PASSWORD": "not a reference",
    "ref+hunter2hunter2": "not a reference",
    "env:PG_PASSWORD": "not a reference",
    " env://PG_PASSWORD": "not a reference",
    "://PG_PASSWORD": "not a reference",
    "ENV://PG_PASSWORD": "env, file and dir work",
    "postgres://bob:hunter2@db/app": "env, file and dir work",
    "vault://secret/data/pg#password": "the scheme vault, which is planned",
    "k8s://shop/pg": "has the scheme k8s, which is planned; env, file and dir work in this release",
    "env://PG_PASSWORD\n": "control character",
    "env://PG\x00": "control character",
    "file:///run/\u202egp": "control character",
    "file:///run/\x1b[31m": "control character",
    "${env:PG_PASSWORD}": "holds ${",
    "file:///run/${HOME}/pg": "holds ${",
    "env://bob:hunter2@PG": "before @",
    "file://bob@host/run/pg": "before @",
    "env://": "env://PREFIX_*",
    "env://*": "env://PREFIX_*",
    "env://1PG": "env://PREFIX_*",
    "env:///PG": "env://PREFIX_*",
    "env://PG-MAIN": "env://PREFIX_*",
    "env://PG_*_PASSWORD": "env://PREFIX_*",
    "env://PG_**": "env://PREFIX_*",
    "env://PÄ": "env://PREFIX_*",
    "env://PG_*#password": "# part",
    "env://PG#": "# part",
    "file://pg.properties": "file:///absolute/path",
    "file://host/run/pg": "file:///absolute/path",
    "file://./pg": "file:///absolute/path",
    "file:///": "file:///absolute/path",
    "file:///run/": "file:///absolute/path",
    "file:///run/p%67": "file:///absolute/path",
    "file:///run/pg#": "# part",
    "file:///run/pg#/": "# part",
    "file:///run/pg#a/b": "# part",
    "file:///run/pg#a b": "# part",
    "env://PG_*?": "none of the fields",
    "env://PG_*?env=prod": "none of the fields",
    "env://PG_*?Password=X": "none of the fields",
    "env://PG_*?password=X&": "none of the fields",
    "env://PG_*?as=env:PG": "the agent resolves secrets itself",
    "file:///run/pg?password=a&as=env%3APG": "the agent resolves secrets itself",
    "env://PG_*?password=A&password=B": "password twice",
    "env://PG_*?password": "not a name in env",
    "env://PG_*?password=a.b": "not a name in env",
    "file:///run/pg?password=a%62": "not a name in file",
    "dir://run/secrets": "dir:///absolute/path",
    "dir:///run/": "dir:///absolute/path",
    "dir:///run/p%67": "dir:///absolute/path",
    "dir:///run/pg#..": "# part",
    "dir:///run/pg#a/b": "# part",
    "dir:///run/pg?password=../pg": "not a name in dir",
    "env://PG?password=X": "no fields to rename",
    "file:///run/pg?password=a#b": "no fields to rename",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_reference_is_refused_and_the_reason_says_what_is_expected(text: str) -> None:
    with pytest.raises(SecretSyntax) as caught:
        parse(text)
    assert BAD[text] in caught.value.message
    assert "env://SHOP_*" in (caught.value.fix or "")
    assert "hunter2" not in shown(caught.value)


def shown(error: ReplicatorError) -> str:
    """Everything that a log could print of an error, its whole chain included."""
    chain: list[BaseException] = [error]
    while (below := chain[-1].__context__) is not None:
        chain.append(below)
    text = [f"{link!s} {link!r} {vars(link)} {link.args}" for link in chain]
    return "\n".join([*text, *traceback.format_exception_only(error)])


PLACES = [
    *("{}", "ref+{}", "{}://x", "x://{}", "env://{}!", "env://u:{}@h", "env://A_*?{}=B", "env://A_*?password={}!"),
    *("env://A_*?as={}", "env://A#{}", "file://{}", "file:///a%{}", "file:///a#{}!", "file:///a?{}", "${{{}}}"),
]
PASSWORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30)


@given(place=st.sampled_from(PLACES), password=PASSWORDS)
def test_the_refusal_of_a_pasted_password_does_not_repeat_it(place: str, password: str) -> None:
    with pytest.raises(SecretSyntax) as caught:
        parse(place.format(f"Zq7{password}"))
    assert "Zq7" not in shown(caught.value)


@given(text=PASSWORDS)
def test_any_text_is_a_reference_or_a_syntax_error(text: str) -> None:
    for start in ("Zq7", "env://Zq7", "file:///Zq7"):
        try:
            ref = parse(start + text)
        except SecretSyntax as error:
            assert "Zq7" not in shown(error)
        else:
            assert ref.text == start + text
            assert start != "Zq7"


ENVIRON = {
    "PG_USERNAME": "bob",
    "PG_PASSWORD": "s3cret\n",
    "S3_AKID": "id",
    "S3_SECRET_ACCESS_KEY": "key",
    "S3_SESSION_TOKEN": "",
    "NEWLINES": "a\n\n",
    "CRLF": "a\r\n",
    "ONLY_NEWLINE": "\n",
    "BYTES": os.fsdecode(b"a\xff"),
}


@pytest.mark.parametrize(
    ("text", "fields", "required", "expected"),
    [
        ("env://PG_*", ("username", "password"), ("password",), {"username": "bob", "password": "s3cret"}),
        ("env://PG_*", ("password",), ("password",), {"password": "s3cret"}),
        ("env://PG*?password=_PASSWORD", ("password",), ("password",), {"password": "s3cret"}),
        ("env://PG_PASSWORD", ("username", "password"), ("password",), {"password": "s3cret"}),
        (
            "env://S3_*?accessKeyId=AKID",
            S3,
            S3_REQUIRED,
            {"accessKeyId": "id", "secretAccessKey": "key"},
        ),
        ("env://NEWLINES", ("token",), ("token",), {"token": "a\n"}),
        ("env://CRLF", ("token",), ("token",), {"token": "a"}),
    ],
)
def test_env(text: str, fields: tuple[str, ...], required: tuple[str, ...], expected: dict[str, str]) -> None:
    assert resolve(parse(text), fields, required=required, environ=ENVIRON) == expected


@pytest.mark.parametrize(
    ("text", "required", "named"),
    [
        ("env://MISSING", ("password",), ["MISSING"]),
        ("env://ONLY_NEWLINE", ("password",), ["ONLY_NEWLINE"]),
        ("env://BYTES", ("password",), ["BYTES"]),
        ("env://S3_*", S3_REQUIRED, ["S3_ACCESS_KEY_ID"]),
        ("env://S3_*", S3, ["S3_ACCESS_KEY_ID", "S3_SESSION_TOKEN"]),
        ("env://PG_PASSWORD", ("username", "password"), ["username and password", "one value"]),
    ],
)
def test_a_missing_variable_is_named_and_no_value_shows(text: str, required: tuple[str, ...], named: list[str]) -> None:
    with pytest.raises(SecretNotFound) as caught:
        resolve(parse(text), FIELDS, required=required, environ=ENVIRON)
    assert all(name in caught.value.message for name in named)
    assert "S3_SECRET_ACCESS_KEY" not in caught.value.message
    assert "s3cret" not in shown(caught.value)


@pytest.mark.parametrize(
    ("text", "reader", "fix"),
    [
        ("env://S3_*", PULUMI, "set S3_ACCESS_KEY_ID in the environment of pulumi on web-1, or correct the reference"),
        (
            "env://S3_*",
            AGENT,
            "set S3_ACCESS_KEY_ID in the environment of the agent on web-1, or correct the reference. A new variable "
            "needs a restart of the agent: systemctl restart, or replicator agent stop and replicator agent start",
        ),
        (
            "file://{folder}/s3",
            AGENT,
            "add accessKeyId and secretAccessKey to {folder}/s3 on web-1, or correct the reference",
        ),
        (
            "dir://{folder}",
            AGENT,
            "write accessKeyId and secretAccessKey in {folder} on web-1, each with the value alone, or correct the "
            "reference",
        ),
    ],
)
def test_the_fix_names_the_process_and_the_host(
    text: str, reader: Reader, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "web-1")
    (tmp_path / "s3").write_text("other=1\n")
    with pytest.raises(SecretNotFound) as caught:
        resolve(parse(text.format(folder=tmp_path)), S3_REQUIRED, required=S3_REQUIRED, environ=ENVIRON, reader=reader)
    assert caught.value.fix == fix.format(folder=tmp_path)


@pytest.mark.parametrize(
    ("fields", "required"), [((), ()), (FIELDS, ()), (("token",), ("password",)), (("x",), ("x",))]
)
def test_a_call_that_makes_no_sense_is_a_programming_error(fields: tuple[str, ...], required: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="required must be some of fields"):
        resolve(parse("env://PG_PASSWORD"), fields, required=required, environ=ENVIRON)


# What java.util.Properties gives for each of these files was seen on OpenJDK.
PROPERTIES = {
    "password=abc": "abc",
    "password: abc\n": "abc",
    "password abc": "abc",
    "  password\t=\fabc  ": "abc  ",
    "# password=no\n! password=no\n\npassword=abc\n": "abc",
    "password=a=b:c#d!e": "a=b:c#d!e",
    "password==abc": "=abc",
    "pass\\u0077ord=a\\tb\\nc\\:d\\\\e\\q": "a\tb\nc:d\\eq",
    "password=a\\\n   b\\\r\n\tc": "abc",
    "password=ab\\\\\nother=x": "ab\\",
    "# comment \\\npassword=abc": "abc",
    "other=\\\n\npassword=abc": "abc",
    "password=first\npassword=abc": "abc",
    "\ufeffpassword=abc": "abc",
    "password=\\uD83D\\uDE00 é\u2028x": "😀 é\u2028x",
    "other=1\rpassword=abc\r": "abc",
    "password=abc\\": "abc",
    '{"password": "abc"}': "abc",
    '\n {"other": 1, "password": "a\\nb\\n"}\n': "a\nb",
}


@pytest.mark.parametrize("content", PROPERTIES)
@pytest.mark.parametrize("suffix", ["", "#password", "#/password", "?password=password"])
def test_file(tmp_path: Path, content: str, suffix: str) -> None:
    (tmp_path / "pg").write_bytes(content.encode())
    ref = parse(f"file://{tmp_path}/pg{suffix}")
    assert resolve(ref, ["username", "password"], required=["password"], environ={}) == {
        "password": PROPERTIES[content]
    }


def test_a_bundle_in_a_file_gives_the_fields_by_their_names_there(tmp_path: Path) -> None:
    (tmp_path / "s3.json").write_text(json.dumps({"aws.id": "id", "secretAccessKey": "key", "sessionToken": ""}))
    ref = parse(f"file://{tmp_path}/s3.json?accessKeyId=aws.id")
    assert ref.entry("accessKeyId") == "aws.id"
    found = resolve(ref, S3, required=S3_REQUIRED, environ={})
    assert found == {"accessKeyId": "id", "secretAccessKey": "key"}


UNUSABLE = {
    b"s3cret": "no text under the key password",  # a file that holds the bare value
    b"": "no text under the key password",
    b"password=": "no text under the key password",
    b"s3cret=x\nPassword=s3cret": "no text under the key password",
    b'{"password": 123456}': "no text under the key password",
    b'{"password": null, "other": "s3cret"}': "no text under the key password",
    b'{"password": {"s3cret": "s3cret"}}': "no text under the key password",
    b'{"password": "s3cret\\ud800"}': "no text under the key password",
    b'{"password": "s3cret"': "neither a JSON object nor a properties file",
    b'{"password": "s3cret"} s3cret': "neither a JSON object nor a properties file",
    b'{"s3cret":' + b"[" * 100_000: "neither a JSON object nor a properties file",
    b"password=s3cret\xff": "neither a JSON object nor a properties file",
    b"password=s3cret\\u12": "neither a JSON object nor a properties file",
    b"password=s3cret\n" + b"#" * (1 << 20): "larger than 1 MiB",
}


@pytest.mark.parametrize("content", UNUSABLE, ids=lambda content: repr(content[:30]))
def test_a_file_without_the_value_is_an_error_that_shows_nothing_of_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pg").write_bytes(content)
    with pytest.raises(SecretNotFound, match=UNUSABLE[content]) as caught:
        resolve(parse(f"file://{tmp_path}/pg"), ["password"], required=["password"], environ={})
    assert f"{tmp_path}/pg" in caught.value.message
    if "under the key" not in UNUSABLE[content]:
        assert f"read a file of key=value lines or a JSON object at {tmp_path}/pg" in str(caught.value.fix)
    assert "s3cret" not in shown(caught.value)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "plain").touch()
    reasons = {
        "gone": "No such file",
        "pipe": "not a regular file",
        "loop": "symbolic links",
        "plain/pg": "Not a directory",
        "x" * 300: "name too long",
    }
    for name, reason in reasons.items():
        with pytest.raises(SecretNotFound, match=reason):
            resolve(parse(f"file://{tmp_path}/{name}#password"), ["password"], required=["password"], environ={})
    with pytest.raises(SecretNotFound, match="not a regular file"):
        resolve(parse(f"file://{tmp_path}"), ["password"], required=["password"], environ={})


@pytest.mark.parametrize("suffix", ["", "#password", "?username=user"])
def test_a_directory_has_a_file_for_each_field(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "..data").mkdir()  # as Kubernetes mounts a secret
    (tmp_path / "..data" / "password").write_bytes(b"s3cret\n")
    (tmp_path / "password").symlink_to("..data/password")
    (tmp_path / "user").write_text("bob")
    (tmp_path / "other").write_bytes(b"\xff")
    found = resolve(parse(f"dir://{tmp_path}{suffix}"), ["username", "password"], required=["password"], environ={})
    assert found == {"password": "s3cret", **({"username": "bob"} if suffix.startswith("?") else {})}


def test_a_directory_without_the_value_is_an_error_that_shows_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "bytes").write_bytes(b"s3cret\xff")
    (tmp_path / "large").write_bytes(b"s3cret" * (1 << 20))
    (tmp_path / "folder").mkdir()
    reasons = {
        f"{tmp_path}#gone": "no file gone",
        f"{tmp_path}#empty": "no file empty, or nothing is in it",
        f"{tmp_path}#bytes": "no UTF-8 text",
        f"{tmp_path}#large": "larger than 1 MiB",
        f"{tmp_path}#folder": "not a regular file",
        f"{tmp_path}/gone": "no file password",
        f"{tmp_path}/empty": "Not a directory",
    }
    for path, reason in reasons.items():
        with pytest.raises(SecretNotFound, match=reason) as caught:
            resolve(parse(f"dir://{path}"), ["password"], required=["password"], environ={})
        assert "s3cret" not in shown(caught.value)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may read every file, so stop being root for a while."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    (tmp_path / "pg").write_text("password=s3cret")
    (tmp_path / "pg").chmod(0)
    for text in (f"file://{tmp_path}/pg", f"dir://{tmp_path}#pg"):
        with unprivileged(), pytest.raises(SecretNotFound, match="Permission denied"):
            resolve(parse(text), ["password"], required=["password"], environ={})


def redactor(*values: str) -> Redactor:
    redact = Redactor()
    for value in values:
        redact.add(value)
    return redact


def yaml_single(value: str) -> str:
    return yaml.safe_dump(value, default_style="'", allow_unicode=True, width=10_000).strip()[1:-1]


# The literals are what Go's strconv.Quote and encoding/json write.
FORMS = {
    "plain": CANARY,
    "quote": quote(CANARY),
    "quote, all": quote(CANARY, safe=""),
    "quote_plus": quote_plus(CANARY),
    "quote, lower case": re.sub("%..", lambda match: match[0].lower(), quote_plus(CANARY)),
    "JSON": json.dumps(CANARY)[1:-1],
    "JSON, not ASCII": json.dumps(CANARY, ensure_ascii=False)[1:-1],
    "JSON in JSON": json.dumps(json.dumps({"error": CANARY})),
    "Python": repr(CANARY)[1:-1],
    "Go": r"cana'ry\"$HOME${X}\\\nsecond <line> & 50%+é",
    "encoding/json of Go": r"cana'ry\"$HOME${X}\\\nsecond \u003cline\u003e \u0026 50%+é",
    "base64": base64.b64encode(CANARY.encode()).decode(),
    "base64, for URLs": base64.urlsafe_b64encode(CANARY.encode()).decode(),
    "first line": CANARY.split("\n", maxsplit=1)[0],
    "second line, JSON": json.dumps(CANARY.split("\n")[1])[1:-1],
}


@pytest.mark.parametrize("name", FORMS)
def test_the_canary_is_redacted_in_every_form(name: str) -> None:
    out = redactor(CANARY)(f"connect: {FORMS[name]} (refused)")
    assert MARK in out
    for part in ("cana", "HOME", "line", "50", "é", "u00e9", "C3"):
        assert part not in out, out
    assert out.startswith("connect: ") and out.endswith(" (refused)")


@pytest.mark.parametrize(
    "form",
    [
        "p%2Fw%3Ad%40x;y,z%27%28%2A%29$%3F",  # url.UserPassword (Go)
        "p%2Fw:d@x%3By%2Cz%27%28%2A%29$%3F",  # url.PathEscape
        "p/w:d@x;y,z%27%28%2A%29$%3F",  # URL.EscapedPath
        "p%2Fw%3Ad%40x%3By%2Cz%27%28%2A%29%24%3F",  # url.QueryEscape
        "p%2Fw%3Ad%40x%3By%2Cz'(*)%24%3F",  # encodeURIComponent (JavaScript)
    ],
)
def test_each_habit_of_url_quoting_is_known(form: str) -> None:
    assert redactor("p/w:d@x;y,z'(*)$?")(form) == MARK


def test_each_line_of_the_canary_is_redacted_in_yaml() -> None:
    document = yaml.safe_dump({"key": CANARY}, default_style="'", allow_unicode=True, indent=4)
    assert "cana''ry" in document
    out = redactor(CANARY)(document)
    assert "cana" not in out and "second" not in out
    assert redactor(CANARY)(yaml.safe_dump({"key": CANARY}, default_style="|", allow_unicode=True)).count(MARK) == 2


VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="[]"), min_size=4, max_size=24).filter(
    lambda value: value not in MARK  # no redactor could hide these from its own mark
)
AROUND = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@given(values=st.lists(VALUES, min_size=1, max_size=3), before=AROUND, after=AROUND)
@example(values=["it's\xad"], before="", after="")
@example(values=["abab", "ababx"], before="ab", after="abx")
def test_redacted_text_holds_no_value_in_any_form(values: list[str], before: str, after: str) -> None:
    redact = redactor(*values)
    for value in values:
        forms = [value, quote(value), quote(value, safe=""), quote_plus(value), repr(value)[1:-1]]
        forms += [json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]]
        if len(value.splitlines()) == 1 and yaml_single(value).replace("''", "'") == value:
            forms.append(yaml_single(value))
        for form in forms:
            out = redact(f"{before}{form}{after}{form}")
            assert MARK in out
            assert not any(other in out for other in (*values, *forms))


@given(value=VALUES, before=st.binary(max_size=7), after=st.binary(max_size=7))
def test_base64_around_a_value_keeps_only_its_neighbours(value: str, before: bytes, after: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        parts = redactor(value)(encode(before + value.encode() + after).decode()).split(MARK)
        assert len(parts) > 1
        assert len(parts[0]) <= -(-len(before) * 8 // 6)
        bits = 8 * len(after) + 4 if after else 0  # up to 4 bits of the value share a character with what follows
        assert len(parts[-1].rstrip("=")) <= -(-bits // 6)


def test_overlapping_values_leave_nothing_over() -> None:
    assert redactor("abcd", "abcdefgh")("x abcdefgh y abcd z") == f"x {MARK} y {MARK} z"
    assert redactor("abcdef", "defghi")("xabcdefghix") == f"x{MARK}x"
    assert redactor("abcd", "efgh")("xabcdefghx") == f"x{MARK}x"
    assert redactor("abab")("xabababx") == f"x{MARK}x"


def test_short_values_and_other_text_stay() -> None:
    text = "the cat sat on [redacted] mats: abc\n"
    assert Redactor()(text) is text
    assert redactor("", "abc", "\n", "a\nb")(text) == text
    assert redactor("quite another")(text) is text


def test_bytes_of_an_environment_that_are_no_text_can_be_added() -> None:
    value = os.fsdecode(b"s3cret\xff")
    assert redactor(value)(f"password={value}!") == f"password={MARK}!"


def test_a_redactor_shows_and_pickles_no_value() -> None:
    redact = redactor("s3cret-s3cret")
    assert "s3cret" not in repr(redact)
    with pytest.raises(TypeError, match="never pickled") as caught:
        pickle.dumps(redact)
    assert "s3cret" not in str(caught.value)


def test_loading_it_loads_nothing_beyond_the_standard_library() -> None:
    program = "import sys; import replicator.authref; print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-S", "-c", program]  # without site, whose .pth files load modules of their own
    done = subprocess.run(command, env={"PYTHONPATH": str(PROVIDER)}, check=True, text=True, capture_output=True)
    loaded = set(done.stdout.split()) - {"__main__"}
    assert "replicator" in loaded
    assert loaded - sys.stdlib_module_names == {"replicator"}


@pytest.mark.parametrize(
    "text",
    [
        "env://SHOP_*?accessKeyId=SECRET_ACCESS_KEY&secretAccessKey=ACCESS_KEY_ID",
        "env://SHOP_*?accessKeyId=SECRET_ACCESS_KEY",
        "env://SHOP_SECRET_*?accessKeyId=ACCESS_KEY",
        "env://S*?accessKeyId=HOP_SECRET_ACCESS_KEY",
        "env://DB_PASS*?username=WORD",
        "env://SHOP_*?accessKeyId=X&secretAccessKey=X",
        "file:///p/s3.json?accessKeyId=secretAccessKey",
        "file:///p/s3.json?accessKeyId=aws.secret-key",
        "dir:///run/secrets/shop?accessKeyId=session_token",
    ],
)
def test_no_id_is_read_from_the_entry_of_a_secret(text: str) -> None:
    with pytest.raises(SecretExposed) as refused:
        parse(text)
    assert text not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "env://SHOP_*?accessKeyId=ID&secretAccessKey=KEY",
        "env://SHOP_SECRET_*",
        "env://SHOP_*?accessKeyId=SECRET_ID&secretAccessKey=SECRET",
        "file:///p/s3.json?accessKeyId=access_key&secretAccessKey=secret_key",
        "env://PG_*?username=TOKEN_USER",
        "env://PG_*?password=USERNAME",
    ],
)
def test_other_names_stay_possible(text: str) -> None:
    assert parse(text).text == text


def test_no_id_has_the_value_of_a_secret_under_another_name(tmp_path: Path) -> None:
    file = tmp_path / "s3.json"
    values = {"accessKeyId": "id", "secretAccessKey": "hunter22", "copy": "hunter22", "key": "other"}
    file.write_text(json.dumps(values))
    environ = {"S_ACCESS_KEY_ID": "id", "S_SECRET_ACCESS_KEY": "hunter22", "S_COPY": "hunter22", "S_KEY": "other"}
    for name, value in values.items():
        (tmp_path / name).write_text(value)
    for renamed in ("accessKeyId={copy}", "accessKeyId={copy}&secretAccessKey={key}"):
        for text in (
            "env://S_*?" + renamed.format(copy="COPY", key="KEY"),
            f"file://{file}?" + renamed.format(copy="copy", key="key"),
            f"dir://{tmp_path}?" + renamed.format(copy="copy", key="key"),
        ):
            with pytest.raises(SecretExposed) as refused:
                resolve(parse(text), S3_REQUIRED, required=S3_REQUIRED, environ=environ)
            assert "hunter22" not in str(refused.value)
    found = resolve(parse("env://S_*?secretAccessKey=KEY"), S3_REQUIRED, required=S3_REQUIRED, environ=environ)
    assert found == {"accessKeyId": "id", "secretAccessKey": "other"}  # the control
