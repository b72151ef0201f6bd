"""Random sequences of what people do with stacks: none takes a stream from its owner without a refusal or an import."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from replicator.backends import memory
from replicator.lifecycle import apply

from tests.ownership.former import WRONG
from tests.ownership.machine import Ownership


class Remote(Ownership):
    """The same over an agent, whose records are looked at too."""

    remote = True


def run(machine: type[Ownership], examples: int, *, seeded: bool = True, shrink: bool = True) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            derandomize=seeded,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize(("machine", "examples"), [(Ownership, 100), (Remote, 40)])
def test_no_stream_is_lost_or_changes_hands(machine: type[Ownership], examples: int) -> None:
    run(machine, examples)


@pytest.mark.proof
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("machine", "examples"), [(Ownership, 5000), (Remote, 1000)])
def test_no_stream_is_lost_or_changes_hands_in_many_sequences(machine: type[Ownership], examples: int) -> None:
    run(machine, examples, seeded=False)


@pytest.mark.parametrize("name", WRONG)
def test_the_model_finds_wrong_rules(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control."""
    rules = WRONG[name]
    monkeypatch.setattr(memory, "settle_owner", rules.settle)
    monkeypatch.setattr(memory, "may_remove", rules.remove)
    monkeypatch.setattr(apply, "may_remove", rules.remove)
    with pytest.raises(AssertionError, match=rules.found):
        run(Ownership, 500, shrink=False)
