"""The forms of `status` and `list`, and which streams they show."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from replicator.lifecycle.function_types import ListedStream

from tests.agent.support import COMMAND, Host, call
from tests.waiting import wait_until

pytestmark = pytest.mark.engine

ID = "litestream/default/orders"


@pytest.fixture
def regions(live: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration with this agent, and with another one that does not run."""
    nowhere = f"unix://{live.folder}/nowhere.sock"
    settings = {"address": live.address, "regions": {"us-east": live.address, "eu-fra": nowhere}}
    monkeypatch.setenv("REPLICATOR_LITESTREAM", json.dumps(settings))


@pytest.mark.parametrize("command", ["status", "list"])
def test_ids_alone(command: str, live: Host) -> None:
    assert call(command, "--address", live.address, "-o", "name") == (0, f"{ID}\n", "")


@pytest.mark.parametrize("command", ["status", "list"])
def test_yaml_says_what_json_says(command: str, live: Host) -> None:
    _, as_json, _ = call(command, "--address", live.address, "-o", "json")
    code, as_yaml, _ = call(command, "--address", live.address, "-o", "yaml")
    assert code == 0
    measured = {"lastEvent", "lastCheckpoint"}
    one, other = (
        [{k: v for k, v in item.items() if k not in measured} for item in found]
        for found in (json.loads(as_json), yaml.safe_load(as_yaml))
    )
    assert one == other
    assert one[0]["id"] == ID


def test_json_and_output_must_agree(live: Host) -> None:
    code, out, err = call("status", "--address", live.address, "--json", "-o", "yaml")
    assert (code, out) == (2, "")
    assert "contradicts --output yaml" in err
    assert call("list", "--address", live.address, "--json", "-o", "json")[0] == 0


def test_wide_has_the_id_and_the_ends(live: Host) -> None:
    code, out, _ = call("status", "--address", live.address, "-o", "wide")
    assert code == 0
    heading, line = out.splitlines()
    assert heading.split()[-4:] == ["id", "owner", "source", "destination"]
    assert line.split()[-4:] == [
        ID,
        "urn:orders",
        f"sqlite://{live.database()}",
        f"file://{live.folder}/replicas/orders",
    ]


@pytest.mark.parametrize(
    ("state", "shown"), [("running", True), ("failed", False), ("catching-up", False), ("catching_up", False)]
)
@pytest.mark.parametrize("command", ["status", "list"])
def test_streams_of_a_state(command: str, state: str, shown: bool, live: Host) -> None:
    code, out, _ = call(command, "--address", live.address, "--state", state)
    assert (code, "orders" in out) == (0, shown)


def test_a_word_that_is_no_state_is_refused(live: Host) -> None:
    code, out, err = call("status", "--address", live.address, "--state", "broken")
    assert (code, out) == (2, "")
    assert "'broken' is not a state; there are running, paused, failed" in " ".join(err.split())


@pytest.mark.parametrize("command", ["status", "describe", "logs", "replays", "pause", "resume"])
def test_a_stream_has_its_id_as_a_name(command: str, live: Host) -> None:
    assert call(command, ID, "--address", live.address)[0] == 0


def test_an_id_of_another_backend_is_a_wrong_command_line(live: Host) -> None:
    code, _, err = call("status", ID, "--address", live.address, "--backend", "kafka-mirror")
    assert (code, "is a stream of litestream" in err) == (2, True)
    code, _, err = call("status", "orders/x", "--address", live.address)
    assert (code, "litestream/default/orders" in err) == (2, True)


def test_quiet_prints_nothing_and_the_exit_code_answers(live: Host) -> None:
    assert call("status", "--quiet", "--address", live.address) == (0, "", "")
    code, out, _ = call("status", "nothing", "-q", "--address", live.address)
    assert (code, out) == (1, "")


@pytest.mark.usefixtures("regions")
def test_every_region_is_asked_once_and_the_one_that_is_away_is_told() -> None:
    code, out, err = call("status", "--all")
    assert code == 1
    heading, line = out.splitlines()
    assert heading.split()[-1] == "backend"
    assert (line.split()[0], line.split()[-1]) == ("orders", "litestream")
    assert err.startswith("error: litestream in eu-fra: no agent runs at unix://")

    code, out, _ = call("status", "--all", "--json")
    stream, away = json.loads(out)
    assert (code, stream["id"], away["region"]) == (1, ID, "eu-fra")
    assert "RPL-AGENT-DOWN" in away["error"]

    code, out, err = call("list", "--all", "-o", "name")
    assert (code, out) == (1, f"{ID}\n")
    assert "RPL-AGENT-DOWN" in err


def test_all_takes_no_address_and_no_name(live: Host) -> None:
    for more in (["--address", live.address], ["--backend", "kafka-mirror"], ["orders"]):
        code, out, _ = call("status", "--all", *more)
        assert (code, out) == (2, "")


def test_list_as_json_is_what_the_function_gives(live: Host) -> None:
    _, out, _ = call("list", "--address", live.address, "--json")
    assert [ListedStream.model_validate(item).id for item in json.loads(out)] == [ID]


def test_watch_shows_it_again_and_goes_on_while_the_agent_is_away(host: Host, tmp_path: Path) -> None:
    host.start()
    log = tmp_path / "out"
    with log.open("w") as out:
        process = subprocess.Popen(
            [COMMAND, "status", "--watch", "--every", "100ms", "--address", host.address], stdout=out
        )
    try:
        wait_until(lambda: log.read_text().count("there are no streams") >= 2, what="it is shown twice")
        host.end()
        wait_until(lambda: "error: no agent runs" in log.read_text(), what="the agent is away")
        before = log.read_text().count("there are no streams")
        host.start()
        wait_until(lambda: log.read_text().count("there are no streams") > before, what="it is shown again")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()


def test_watch_shows_tables_alone(live: Host) -> None:
    for more in ("--json", "--quiet"):
        assert call("status", "--watch", more, "--address", live.address)[0] == 2


def test_the_version() -> None:
    code, out, err = call("--version")
    assert (code, out, err) == (0, "replicator 0.2.0\n", "")


@pytest.mark.parametrize("command", ["status", "list", "describe orders", "status -o json", "status -o name"])
def test_a_reader_that_stops_ends_the_command_without_a_word(command: str, live: Host) -> None:
    script = f"{COMMAND} {command} --address {live.address} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("command", ["status", "list", "describe orders", "status -o yaml"])
def test_a_full_disk_is_an_error(command: str, live: Host) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [COMMAND, *command.split(), "--address", live.address],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "error: the output cannot be written: No space left on device\n")
