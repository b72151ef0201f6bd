"""Properties on the wire, with Pulumi's own two serializers as oracle."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import pickle
from collections.abc import Iterator
from typing import Any

import pulumi
import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st
from pulumi.output import Unknown as PulumiUnknown
from pulumi.provider.experimental.property_value import PropertyValue, ResourceReference
from pulumi.runtime import rpc as pulumi_rpc
from pulumi.runtime import settings
from pulumi.runtime.proto import resource_pb2
from replicator.plugin import codec
from replicator.plugin.codec import UNKNOWN, PropertyError, Secret, decode, encode

UNKNOWN_TO_PULUMI = PulumiUnknown()  # type: ignore[no-untyped-call]

# Pulumi reads these two texts as marks, so no user's value holds them.
MARKS = {codec.SIGNATURE, codec.UNKNOWN_TEXT}
texts = st.text().filter(lambda text: text not in MARKS)
doubles = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(min_value=-(2**53), max_value=2**53)
plain = st.recursive(
    st.none() | st.booleans() | integers | doubles | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def as_secret(value: Any) -> Secret:
    return value if isinstance(value, Secret) else Secret(value)


values = st.recursive(
    st.none() | st.booleans() | integers | doubles | texts | st.just(UNKNOWN),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3) | inner.map(as_secret),
    max_leaves=8,
)
properties = st.dictionaries(texts, values, max_size=4)


def wire(document: dict[str, Any]) -> Struct:
    """The Struct of a JSON document, as an engine would send it."""
    return json_format.ParseDict(document, Struct())


def marked(signature: str, **fields: Any) -> dict[str, Any]:
    return {codec.SIGNATURE: signature, **fields}


def same(left: Any, right: Any) -> bool:
    """Equality that tells 1 from True, and does not tell 1 from 1.0."""
    if isinstance(left, Secret) and isinstance(right, Secret):
        return same(left.value, right.value)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


# --- Pulumi as oracle ------------------------------------------------------------------------------------------------


def test_the_signatures_are_those_of_the_sdk() -> None:
    assert pulumi_rpc._special_sig_key == codec.SIGNATURE
    assert pulumi_rpc._special_secret_sig == codec.SECRET
    assert pulumi_rpc._special_output_value_sig == codec.OUTPUT
    assert pulumi_rpc._special_resource_sig == codec.RESOURCE
    assert pulumi_rpc._special_asset_sig == codec.ASSET
    assert pulumi_rpc._special_archive_sig == codec.ARCHIVE
    assert codec.UNKNOWN_TEXT == pulumi_rpc.UNKNOWN


def to_pulumi(value: Any) -> PropertyValue:
    """A value in the terms of Pulumi's provider SDK."""
    if isinstance(value, Secret):
        return to_pulumi(value.value).with_secret(True)
    if value is UNKNOWN:
        return PropertyValue(codec.UNKNOWN_TEXT)
    if isinstance(value, dict):
        return PropertyValue({key: to_pulumi(item) for key, item in value.items()})
    if isinstance(value, list):
        return PropertyValue([to_pulumi(item) for item in value])
    if isinstance(value, int) and not isinstance(value, bool):
        return PropertyValue(float(value))
    return PropertyValue(value)


@given(properties)
def test_the_provider_sdk_reads_what_we_write(props: dict[str, Any]) -> None:
    expected = {key: to_pulumi(value) for key, value in props.items()}
    assert PropertyValue.unmarshal_map(encode(props)) == expected


@given(properties)
def test_we_write_the_bytes_that_the_provider_sdk_writes(props: dict[str, Any]) -> None:
    theirs = PropertyValue.marshal_map({key: to_pulumi(value) for key, value in props.items()})
    assert encode(props) == theirs


@given(properties, st.sets(texts, max_size=2))
def test_we_read_the_outputs_that_the_provider_sdk_writes(props: dict[str, Any], dependencies: set[str]) -> None:
    theirs = {key: to_pulumi(value).with_dependencies(dependencies) for key, value in props.items()}
    assert same(decode(PropertyValue.marshal_map(theirs)), props)


@given(plain)
def test_the_program_sdk_reads_what_we_write(value: Any) -> None:
    read = pulumi_rpc.deserialize_properties(encode({"nested": {"value": value}}))
    assert same(read, {"nested": {} if value is None else {"value": without_null_entries(value)}})


def without_null_entries(value: Any) -> Any:
    """The program SDK leaves null entries of maps out."""
    if isinstance(value, dict):
        return {key: without_null_entries(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_null_entries(item) for item in value]
    return value


@pytest.fixture
def engine_features(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The features of a present engine, which decide in what form the program SDK writes."""
    features = {
        resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS,
        resource_pb2.RESOURCE_MONITOR_FEATURE_OUTPUT_VALUES,
        resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_REFERENCES,
    }
    monkeypatch.setattr(settings, "monitor_supports_feature", features.__contains__)
    yield


def output(value: Any, *, known: bool = True, secret: bool = False) -> pulumi.Output[Any]:
    def resolved(outcome: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_result(outcome)
        return future

    return pulumi.Output(resolved(set()), resolved(value), resolved(known), resolved(secret))


@pytest.mark.usefixtures("engine_features")
@pytest.mark.parametrize("keep_outputs", [False, True])
async def test_we_read_what_the_program_sdk_writes(keep_outputs: bool) -> None:
    inputs = {
        "plain": {"uri": "postgres://höst/データ", "count": 9007199254740991, "ratio": 0.5, "on": True},
        "output": output({"tables": ["orders", "käufe"]}),
        "secret": output("hunter2", secret=True),
        "nested": {"password": output("hunter2", secret=True), "deep": [output([1, 2], secret=True), None]},
        "unknown": output(None, known=False),
        "secretUnknown": output(None, known=False, secret=True),
        "partly": {"a": UNKNOWN_TO_PULUMI, "b": 1},
    }
    struct = await pulumi_rpc.serialize_properties(inputs, {}, keep_output_values=keep_outputs)
    assert decode(struct) == {
        "plain": {"uri": "postgres://höst/データ", "count": 9007199254740991, "ratio": 0.5, "on": True},
        "output": {"tables": ["orders", "käufe"]},
        "secret": Secret("hunter2"),
        "nested": {"password": Secret("hunter2"), "deep": [Secret([1, 2]), None]},
        "unknown": UNKNOWN,
        "secretUnknown": Secret(UNKNOWN),
        "partly": {"a": UNKNOWN, "b": 1},
    }


def test_secrets_and_unknowns_arrive_in_the_program_sdk() -> None:
    read = pulumi_rpc.deserialize_properties(encode({"a": Secret({"k": 1}), "b": UNKNOWN}), keep_unknowns=True)
    assert pulumi_rpc.is_rpc_secret(read["a"])
    assert pulumi_rpc.unwrap_rpc_secret(read["a"]) == {"k": 1}
    assert isinstance(read["b"], PulumiUnknown)


@pytest.mark.usefixtures("engine_features")
@pytest.mark.parametrize(
    "asset",
    [
        pulumi.StringAsset("x"),
        pulumi.FileAsset("x"),
        pulumi.FileArchive("x"),
        pulumi.AssetArchive({"a": pulumi.StringAsset("x")}),
    ],
    ids=lambda asset: type(asset).__name__,
)
async def test_assets_and_archives_are_refused_by_name(asset: Any) -> None:
    struct = await pulumi_rpc.serialize_properties({"source": {"options": [1, {"file": asset}]}}, {})
    with pytest.raises(
        PropertyError, match=r"source\.options\[1\]\.file: an (asset|archive) is not accepted"
    ) as caught:
        decode(struct)
    assert caught.value.path == ("source", "options", 1, "file")
    assert isinstance(caught.value, ValueError)


# --- reading ---------------------------------------------------------------------------------------------------------


@given(properties)
def test_a_round_trip_changes_nothing(props: dict[str, Any]) -> None:
    assert same(decode(Struct.FromString(encode(props).SerializeToString())), props)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (marked(codec.RESOURCE, urn="urn:x", id="debezium/default/a"), "debezium/default/a"),
        (marked(codec.RESOURCE, urn="urn:x", id=""), UNKNOWN),
        (marked(codec.RESOURCE, urn="urn:x", id=codec.UNKNOWN_TEXT), UNKNOWN),
        (marked(codec.RESOURCE, urn="urn:component"), "urn:component"),
        (marked(codec.OUTPUT, dependencies=["urn:x"]), UNKNOWN),
        (marked(codec.OUTPUT, secret=True), Secret(UNKNOWN)),
        (marked(codec.OUTPUT, secret=False, value=3), 3),
        (marked(codec.OUTPUT, secret=True, value=marked(codec.SECRET, value="x")), Secret("x")),
        (marked(codec.SECRET, value=marked(codec.SECRET, value="x")), Secret("x")),
        (marked(codec.SECRET, value=None), Secret(None)),
        (marked(codec.SECRET, value=codec.UNKNOWN_TEXT), Secret(UNKNOWN)),
    ],
)
def test_marked_maps(document: Any, expected: object) -> None:
    assert decode(wire({"list": [document]})) == {"list": [expected]}


@pytest.mark.parametrize("signature", ["", "5f0ab7f2a0a34e8aa7d0ab3a5e3a2b51"])
def test_a_signature_that_we_do_not_know_is_an_error(signature: str) -> None:
    with pytest.raises(PropertyError, match=r"^a\.b: a kind of value"):
        decode(wire({"a": {"b": marked(signature)}}))


def test_a_secret_without_a_value_is_an_error() -> None:
    with pytest.raises(PropertyError, match=r"^a: a secret without a value"):
        decode(wire({"a": marked(codec.SECRET)}))


def test_numbers_keep_their_kind() -> None:
    read = decode(wire({"int": 3.0, "big": 2.0**53, "huge": 1e300, "float": 0.5, "bool": True, "null": None}))
    assert read == {"int": 3, "big": 2**53, "huge": int(1e300), "float": 0.5, "bool": True, "null": None}
    assert {key: type(value) for key, value in read.items()} == {
        "int": int,
        "big": int,
        "huge": int,
        "float": float,
        "bool": bool,
        "null": type(None),
    }


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "not finite"),
        (math.inf, "not finite"),
        (-math.inf, "not finite"),
        (2**53 + 1, "would round"),
        (10**400, "too large"),
        (b"bytes", "type bytes"),
        ({1, 2}, "type set"),
        ("\udcff", "not valid Unicode"),
    ],
)
def test_what_has_no_form_on_the_wire_is_refused_by_name(value: object, reason: str) -> None:
    with pytest.raises(PropertyError, match=reason) as caught:
        encode({"status": Secret({"tables": [{}, {"a.b": value}]})})
    assert caught.value.path == ("status", "tables", 1, "a.b")
    assert str(caught.value).startswith('status.tables[1]["a.b"]: ')


def test_keys_are_strings() -> None:
    with pytest.raises(PropertyError, match=r"^a: a key of type int"):
        encode({"a": {1: "x"}})


def test_tuples_and_empty_containers() -> None:
    assert decode(encode({"tuple": (1, "x"), "list": [], "map": {}, "secret": Secret(())})) == {
        "tuple": [1, "x"],
        "list": [],
        "map": {},
        "secret": Secret([]),
    }


def test_secrets_do_not_nest_on_the_wire() -> None:
    assert encode({"a": Secret(Secret(Secret(1)))}) == encode({"a": Secret(1)})


# --- Secret and UNKNOWN ----------------------------------------------------------------------------------------------


def test_a_secret_hides_its_value() -> None:
    secret = Secret("canary-7f3")
    shown = f"{secret} {secret!r} {[secret]} {secret!s:>5}" + "%s" % secret  # noqa: UP031
    assert "canary" not in shown
    assert Secret([1]) == Secret([1]) != Secret([2])
    values: list[object] = [1, None, "x"]
    assert Secret(1) not in values
    assert hash(Secret("x")) == hash(Secret("x"))
    with pytest.raises(AttributeError):
        secret.value = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        json.dumps({"a": secret})


def test_unknown_is_one_object_and_has_no_truth() -> None:
    assert repr(UNKNOWN) == str(UNKNOWN) == "UNKNOWN"
    with pytest.raises(TypeError, match="neither true nor false"):
        bool(UNKNOWN)
    for copied in (
        copy.copy(UNKNOWN),
        copy.deepcopy([UNKNOWN])[0],
        pickle.loads(pickle.dumps(UNKNOWN)),
        type(UNKNOWN)(),
    ):
        assert copied is UNKNOWN
    values: list[object] = [codec.UNKNOWN_TEXT, None, ""]
    assert UNKNOWN not in values


# --- walking ---------------------------------------------------------------------------------------------------------


@given(properties)
def test_stripped_values_hold_no_secret_and_can_be_wrapped_again(props: dict[str, Any]) -> None:
    stripped = codec.strip(props)
    assert codec.secret_paths(stripped) == frozenset()
    rewrapped = codec.wrap_secrets(stripped, codec.secret_paths(props))
    assert codec.secret_paths(rewrapped) == codec.secret_paths(props)
    assert same(codec.strip(rewrapped), stripped)


@given(properties)
def test_what_is_left_without_unknowns_is_known(props: dict[str, Any]) -> None:
    known, paths = codec.drop_unknown(props)
    assert not codec.contains_unknown(known)
    assert bool(paths) == codec.contains_unknown(props)
    assert len(set(paths)) == len(paths)
    if not paths:
        assert same(known, props)


def test_strip_goes_deep() -> None:
    assert codec.strip({"a": Secret([Secret({"b": Secret(1)})]), "c": (Secret(2), UNKNOWN)}) == {
        "a": [{"b": 1}],
        "c": [2, UNKNOWN],
    }


def test_unknowns_leave_maps_and_take_whole_lists_with_them() -> None:
    known, paths = codec.drop_unknown(
        {
            "a": UNKNOWN,
            "b": Secret(UNKNOWN),
            "keep": [1, Secret(2)],
            "list": [1, UNKNOWN],
            "lists": [[UNKNOWN], [{"lost": UNKNOWN}]],
            "maps": [{"x": 1, "y": UNKNOWN}, {"z": Secret({"p": UNKNOWN, "q": 1})}],
        }
    )
    assert known == {"keep": [1, Secret(2)], "maps": [{"x": 1}, {"z": Secret({"q": 1})}]}
    assert paths == (("a",), ("b",), ("list",), ("lists",), ("maps", 0, "y"), ("maps", 1, "z", "p"))
    assert codec.drop_unknown(UNKNOWN) == (UNKNOWN, ((),))


def test_secrets_are_wrapped_where_the_paths_lead() -> None:
    value = {"a": {"b": 1, "c": 2}, "list": [{"k": 1}, {"k": 2}], "s": Secret({"k": 1}), "n": None}
    paths = [("a", "b"), ("list", 1, "k"), ("list", 7, "k"), ("s", "k"), ("n",), ("gone",), ("a", "b", "deeper")]
    assert codec.wrap_secrets(value, paths) == {
        "a": {"b": Secret(1), "c": 2},
        "list": [{"k": 1}, {"k": Secret(2)}],
        "s": Secret({"k": 1}),
        "n": Secret(None),
    }
    assert value["a"] == {"b": 1, "c": 2}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("tables", 0, "filter"), "tables[0].filter"),
        (("labels", "a.b"), 'labels["a.b"]'),
        (("a", 'say "x"'), 'a["say \\"x\\""]'),
        (("", "b"), '[""].b'),
        ((), ""),
    ],
)
def test_paths_are_written_as_pulumi_writes_them(path: codec.Path, text: str) -> None:
    assert codec.path_text(path) == text


def test_references_of_the_sdk_are_read_as_urn_without_an_id() -> None:
    theirs = PropertyValue.marshal_map({"ref": PropertyValue(ResourceReference(urn="urn:x"))})
    assert decode(theirs) == {"ref": "urn:x"}
