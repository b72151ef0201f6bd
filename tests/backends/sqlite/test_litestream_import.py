"""From a litestream.yml to streams, and the refusal of what cannot be carried over, each with its line."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from replicator.backends.sqlite.litestream_import import Takeover, Wanted, read
from replicator.errors import InvalidConfig, Unsupported
from replicator.lifecycle.check import Identity
from replicator.lifecycle.check import check as check_inputs
from replicator.lifecycle.config import ProviderConfig
from replicator.model import Stream

ENVIRON = {"DATA": "/srv/data", "BUCKET": "backups", "MY_KEY": "AKIA", "MY_SECRET": "secret value"}
_IDENTITY, _CONFIG = Identity.of_urn("urn:pulumi:dev::shop::replicator:index:Stream::a"), ProviderConfig()
CANARY = "canary-5ecret"


def taken(folder: Path, text: str, **wanted: Any) -> Takeover:
    file = folder / "litestream.yml"
    file.write_text(text)
    return read(file, Wanted(environ=ENVIRON, **wanted))


def only(folder: Path, text: str, **wanted: Any) -> Stream:
    (stream,) = taken(folder, text, **wanted).streams
    return stream


def refused(folder: Path, text: str, **wanted: Any) -> list[str]:
    """The settings that are named, each as `line N: path: why`."""
    with pytest.raises(Unsupported) as caught:
        taken(folder, text, **wanted)
    assert CANARY not in str(caught.value)
    return [line.strip() for line in caught.value.message.splitlines()[1:]]


# --- destinations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replica", "uri"),
    [
        ("{url: 'file:///var/backups/a/'}", "file:///var/backups/a"),
        ("{path: /var/backups/a}", "file:///var/backups/a"),
        ("{type: file, path: /var/backups/a}", "file:///var/backups/a"),
        ("{url: 's3://backups/eu/a'}", "s3://backups/eu/a"),
        ("{url: 's3://$BUCKET/eu/a'}", "s3://backups/eu/a"),
        ("{type: s3, bucket: '${BUCKET}', path: eu/a, name: old}", "s3://backups/eu/a"),
        ("{type: s3, bucket: b-1, path: a, region: eu-central-1}", "s3://b-1/a?region=eu-central-1"),
        (
            "{url: 's3://b-1/a?endpoint=https://s3.example.com&region=x&forcePathStyle=true'}",
            "s3://b-1/a?endpoint=https://s3.example.com&region=x",
        ),
        (
            "{type: s3, bucket: b-1, path: a, endpoint: 'http://s3:9000', force-path-style: true}",
            "s3://b-1/a?endpoint=http://s3:9000",
        ),
        ("{url: 's3://b-1/a', endpoint: 'http://s3:9000'}", "s3://b-1/a?endpoint=http://s3:9000"),
    ],
)
@pytest.mark.parametrize("form", ["replica: {}", "replicas: [{}]"])
def test_a_replica_keeps_its_prefix(form: str, replica: str, uri: str, tmp_path: Path) -> None:
    stream = only(tmp_path, f"dbs:\n  - path: /srv/a.db\n    {form.replace('{}', replica)}\n")
    assert stream.destination.uri == uri
    assert stream.source.uri == "sqlite:///srv/a.db"
    assert (stream.checkpoint_interval, stream.options, stream.owner) == (None, {}, None)
    assert check_inputs(stream.wire(), (), {}, _IDENTITY, _CONFIG).failures == []


def test_what_stands_beside_dbs_holds_for_each_replica(tmp_path: Path) -> None:
    text = """
access-key-id: ${LITESTREAM_ACCESS_KEY_ID}
secret-access-key: ${LITESTREAM_SECRET_ACCESS_KEY}
region: eu-central-1
sync-interval: 10s
dbs:
  - path: $DATA/a.db
    replica: {type: s3, bucket: b-1, path: a}
  - path: ${DATA}/b.db
    replica: {type: s3, bucket: b-1, path: b, region: us-east-1, sync-interval: 1s}
"""
    first, second = taken(tmp_path, text).streams
    assert [first.source.uri, second.source.uri] == ["sqlite:///srv/data/a.db", "sqlite:///srv/data/b.db"]
    assert [first.destination.uri, second.destination.uri] == [
        "s3://b-1/a?region=eu-central-1",
        "s3://b-1/b?region=us-east-1",
    ]
    assert first.destination.auth_ref == second.destination.auth_ref == "env://LITESTREAM_*"
    assert [first.checkpoint_interval, second.checkpoint_interval] == [timedelta(seconds=10), None]


@pytest.mark.parametrize(
    ("key_id", "secret", "reference"),
    [
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "env://AWS_*"),
        ("SHOP_S3_KEY", "SHOP_S3_SECRET", "env://SHOP_S3_*?accessKeyId=KEY&secretAccessKey=SECRET"),
        ("AKEY", "ASECRET", "env://A*?accessKeyId=KEY&secretAccessKey=SECRET"),
    ],
)
def test_placeholders_become_a_reference(key_id: str, secret: str, reference: str, tmp_path: Path) -> None:
    text = "dbs: [{path: /a.db, replica: {url: 's3://b-1/a', access-key-id: '${%s}', secret-access-key: $%s}}]"
    assert only(tmp_path, text % (key_id, secret)).destination.auth_ref == reference


def test_a_reference_of_the_callers_takes_the_place_of_keys(tmp_path: Path) -> None:
    text = f"dbs: [{{path: /a.db, replica: {{url: 's3://b-1/a', access-key-id: A, secret-access-key: {CANARY}}}}}]"
    stream = only(tmp_path, text, auth_ref="file:///etc/s3.json", region="eu-fra")
    assert stream.destination.auth_ref == "file:///etc/s3.json"
    assert stream.source.region == "eu-fra"


def test_settings_of_a_database_become_options(tmp_path: Path) -> None:
    text = """
dbs:
  - path: /a.db
    monitor-interval: 2s
    busy-timeout: 3s
    min-checkpoint-page-count: 500
    restore-if-db-not-exists: false
    replica: {path: /r, sync-interval: 1m30s, auto-recover: false}
"""
    stream = only(tmp_path, text)
    assert stream.options == {"monitor-interval": "2s", "busy-timeout": "3s", "min-checkpoint-page-count": 500}
    assert stream.checkpoint_interval == timedelta(seconds=90)
    assert check_inputs(stream.wire(), (), {}, _IDENTITY, _CONFIG).failures == []


def test_names_come_from_files_and_stay(tmp_path: Path) -> None:
    paths = ["/srv/one/Data.db", "/srv/two/data.db", "/srv/2/9 lives.sqlite", "/srv/known.db", "/srv/orders.db"]
    text = "dbs:\n" + "".join(f"  - {{path: '{path}', replica: {{path: /r/{n}}}}}\n" for n, path in enumerate(paths))
    names = {Path("/srv/known.db"): "shop", Path("/elsewhere.db"): "orders"}
    made = [[stream.name for stream in taken(tmp_path, text, names=names).streams] for _ in range(2)]
    assert made[0] == made[1] == ["data", "two-data", "db-9-lives", "shop", "srv-orders"]


def test_the_daemons_own_settings_are_told(tmp_path: Path) -> None:
    text = """
logging: {level: debug}
socket: {enabled: true, path: /run/l.sock}
snapshot: {interval: 24h, retention: 24h0m}
levels: [{interval: 30s}, {interval: 5m}, {interval: 1h}]
l0-retention: 5m
retention: {enabled: true}
dbs: [{path: /a.db, replica: {path: /r}}]
"""
    found = taken(tmp_path, text)
    assert found.own == ("logging", "socket")
    assert found.socket == Path("/run/l.sock")
    assert taken(tmp_path, "dbs: [{path: /a.db, replica: {path: /r}}]").socket is None


# --- refusals --------------------------------------------------------------------------------------------------------


def test_every_setting_is_named_with_its_line(tmp_path: Path) -> None:
    text = f"""addr: ":9090"
snapshot:
  retention: 720h
access-key-id: {CANARY}
secret-access-key: {CANARY}
dbs:
  - path: /a.db
    meta-path: /meta
    replica:
      url: s3://b-1/a
      sse-kms-key-id: {CANARY}
      part-size: 5MB
  - dir: /srv
    pattern: "*.db"
    replica: {{url: 's3://b-1/b', unheard-of: 1}}
"""
    assert "--auth-ref file:///etc/replicator/s3.properties" in refused(tmp_path, text)[2]
    assert [line.split(": ")[:2] for line in refused(tmp_path, text)] == [
        ["line 1", "addr"],
        ["line 3", "snapshot.retention"],
        ["line 4", "access-key-id"],
        ["line 5", "secret-access-key"],
        ["line 8", "dbs[0].meta-path"],
        ["line 11", "dbs[0].replica.sse-kms-key-id"],
        ["line 12", "dbs[0].replica.part-size"],
        ["line 13", "dbs[1].dir"],
        ["line 14", "dbs[1].pattern"],
        ["line 15", "dbs[1].replica.unheard-of"],
    ]


def test_what_one_can_do_without_is_left_out_on_demand(tmp_path: Path) -> None:
    text = """
addr: ":9090"
snapshot: {retention: 720h}
retention: {enabled: false}
dbs: [{path: /a.db, replica: {url: 's3://b-1/a', part-size: 5MB}}]
"""
    with pytest.raises(Unsupported) as caught:
        taken(tmp_path, text)
    offered = "--without addr --without snapshot.retention --without retention --without part-size"
    assert offered in (caught.value.fix or "")
    keys = offered.replace("--without ", "").split()
    assert only(tmp_path, text, without=keys).name == "a"
    assert taken(tmp_path, text, without=keys).needless == ()
    assert taken(tmp_path, text, without=["exec", *keys, "part_size", "exec"]).needless == ("exec", "part_size")
    assert [line.split(": ")[1] for line in refused(tmp_path, text, without=["addr", "part-size"])] == [
        "snapshot.retention",
        "retention",
    ]
    kept = "dbs: [{path: /a.db, meta-path: /m, replica: {path: /r}}]"
    assert refused(tmp_path, kept, without=["meta-path"])  # this one says where the data is


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("replica: {url: 'gs://b/a'}", "to s3 and file, not to gs"),
        ("replica: {type: sftp, path: /a}", "to s3 and file, not to sftp"),
        ("replicas: [{path: /a}, {path: /b}]", "needs exactly one replica"),
        ("monitor-interval: 1s", "needs exactly one replica"),
        ("replica: {path: backups}", "write the absolute path"),
        ("replica: {path: ~/backups}", "write the absolute path"),
        ("replica: {url: 's3://b-1'}", "a prefix or folder is made of"),
        ("replica: {type: s3, bucket: b-1, path: /a}", "begins or ends with '/'"),
        ("replica: {url: 's3://b-1.s3.eu-west-1.amazonaws.com/a'}", "write s3://b-1/a?region=eu-west-1"),
        ("replica: {url: 's3://b-1.localhost:9000/a'}", "write s3://b-1/a?endpoint=http://localhost:9000"),
        ("replica: {url: 's3://b-1/a?endpoint=minio:9000'}", "an endpoint needs its http:// or https://"),
        ("replica: {url: 's3://b-1/a?skipVerify=true'}", "the parameter skipVerify cannot be carried over"),
        ("replica: {url: 's3://b-1/a?endpoint=http://m:9000&forcePathStyle=false'}", "another style than path style"),
        (f"replica: {{url: 's3://key:{CANARY}@b-1/a'}}", "holds a user or a password"),
        ("replica: {url: 's3://b-1/a', access-key-id: '${MY_KEY}'}", "without the other half"),
        (
            "replica: {url: 's3://b-1/a', access-key-id: '${ONE}', secret-access-key: '${TWO}'}",
            "ONE and TWO have no common beginning",
        ),
        ("replica: {url: 's3://b-1/a', skip-verify: true}", "the agent verifies certificates"),
        ("replica: {url: 'file:///a', path: /b}", "stands beside url"),
    ],
)
def test_what_a_replica_cannot_be(line: str, words: str, tmp_path: Path) -> None:
    (found,) = refused(tmp_path, f"dbs:\n  - path: /a.db\n    {line}\n")
    assert found.startswith(("line 2: ", "line 3: "))
    assert words in found


def test_transactions_that_the_agent_would_not_keep_are_refused(tmp_path: Path) -> None:
    text = "l0-retention: 48h\ndbs: [{path: /a.db, replica: {path: /r}}]"
    (found,) = refused(tmp_path, text)
    assert found.endswith("start it with --replay-window 48h")
    assert only(tmp_path, text, replay_window=timedelta(hours=48)).name == "a"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("dbs: []", "names no database"),
        ("addr", "is not a list of settings"),
        ("dbs:\n  - path: /a\n    replica: {url: ${MY_KEY}}", "line 3: "),
        (f"dbs:\n  - path: [{CANARY}", "litestream.yml, line "),
        ("dbs:\n  - path: $NOWHERE/a.db\n    replica: {path: /r}", "line 2: names the variable NOWHERE"),
        ("dbs:\n  - path: /a$/b.db\n    replica: {path: /r}", "line 2: holds a $ that names no variable"),
        ("dbs:\n  - path: /a\n    path: /b", "line 3: stands there twice"),
        ("dbs:\n  - path: /a\n    replica: {path: /r, sync-interval: soon}", "line 3: is not a duration"),
        ("dbs:\n  - path: /a\n    replica: {path: /r, sync-interval: '1h, 30m'}", "line 3: is not a duration"),
        ("dbs:\n  - path: /a\n    busy-timeout: 10mm\n    replica: {path: /r}", "line 3: is not a duration"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_line(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig) as caught:
        taken(tmp_path, text)
    assert words in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("{path: /r}", "{path: /r}", "replicates to where dbs[0] (line 2) does"),
        ("{path: /r}", "{path: /r/inside}", "replicates to where dbs[0] (line 2) does"),
        ("{url: 's3://b-1/a/b'}", "{url: 's3://b-1/a', region: eu-west-1}", "replicates to where dbs[0] (line 2) does"),
        ("{url: 's3://b-1/a', endpoint: 'http://m:9000'}", "{url: 's3://b-1/a', endpoint: 'http://o:9000'}", None),
        ("{path: /r/one}", "{path: /r/other}", None),
    ],
)
def test_two_databases_have_two_places(first: str, second: str, words: str | None, tmp_path: Path) -> None:
    text = f"dbs:\n  - path: /a.db\n    replica: {first}\n  - path: /b.db\n    replica: {second}\n"
    if words is None:
        assert len(taken(tmp_path, text).streams) == 2
        return
    (found,) = refused(tmp_path, text)
    assert found.startswith("line 4: dbs[1]: ")
    assert words in found


def test_a_database_that_the_agent_has_is_listed_once_too(tmp_path: Path) -> None:
    text = "dbs:\n  - path: /a.db\n    replica: {path: /r}\n  - path: /x/../a.db\n    replica: {path: /s}\n"
    (found,) = refused(tmp_path, text, names={Path("/a.db"): "orders"})
    assert "is the same database as dbs[0] (line 2)" in found
