"""Routing policies: deterministic, fair, and clear about what they refuse."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermal_enhance.tasks.policy import PolicyConfig, RoutingPolicy, make_policy
from thermal_enhance.tasks.registry import UnknownTask

NAMES = ("enhancement", "detection", "segmentation", "small_target")
ABC = ("a", "b", "c")


def run(policy: RoutingPolicy, frames: int, demanded: frozenset[str] = frozenset()) -> str:
    return "".join(policy.next(demanded) or "-" for _ in range(frames))


def test_fixed() -> None:
    policy = make_policy(PolicyConfig("fixed", ("detection",)), NAMES)
    assert {policy.next(frozenset({"segmentation"})) for _ in range(5)} == {"detection"}
    assert policy.active() == ("detection",)
    identity = make_policy(PolicyConfig(), NAMES)
    assert identity.next(frozenset(NAMES)) == "" and identity.active() == ()


def test_round_robin_gives_weights_in_a_row() -> None:
    policy = RoutingPolicy(PolicyConfig("round_robin", ABC, (2, 1, 3)))
    assert run(policy, 14) == "aabcccaabcccaa"
    policy.reset()
    assert run(policy, 3) == "aab"
    assert policy.weights() == (2, 1, 3)


def test_on_demand_serves_only_who_listens() -> None:
    policy = RoutingPolicy(PolicyConfig("on_demand", ABC))
    assert run(policy, 3) == "---"
    assert run(policy, 3, frozenset("b")) == "bbb"
    assert run(policy, 4, frozenset("ac")) == "caca"
    assert run(policy, 2, frozenset({"x"})) == "--"
    assert policy.active(frozenset("cax")) == ("a", "c") and policy.weights(frozenset("c")) == (1,)


def test_a_turn_ends_when_nobody_listens_any_more_and_goes_on_after_a_pause() -> None:
    policy = RoutingPolicy(PolicyConfig("on_demand", ABC, (3, 2, 1)))
    assert run(policy, 2, frozenset("ab")) == "aa"
    assert run(policy, 3, frozenset("bc")) == "bbc"
    assert run(policy, 1) == "-"
    assert run(policy, 4, frozenset("abc")) == "aaab"


def test_on_demand_without_tasks_means_all_known_ones() -> None:
    assert make_policy(PolicyConfig("on_demand"), NAMES).config.tasks == NAMES
    with pytest.raises(ValueError, match="on_demand"):
        RoutingPolicy(PolicyConfig("on_demand"))


def test_unknown_tasks_are_refused() -> None:
    with pytest.raises(UnknownTask, match="known: enhancement, detection"):
        make_policy(PolicyConfig("round_robin", ("detection", "tracking")), NAMES)


@pytest.mark.parametrize(
    ("policy", "tasks", "weights", "says"),
    [
        ("sometimes", ("a",), (), "one of fixed, round_robin, on_demand"),
        ("fixed", ("a", "b"), (), "takes one task"),
        ("fixed", ("a",), (1,), "weights has no meaning"),
        ("round_robin", (), (), "needs at least one task"),
        ("round_robin", ("a", "a"), (), "more than once"),
        ("round_robin", ("a", "b"), (1,), "give one each"),
        ("round_robin", ("a",), (0,), "weights must be 1 to 1000"),
        ("on_demand", ("a",), (1001,), "weights must be 1 to 1000"),
        ("on_demand", (), (1,), "give one each"),
        ("fixed", ("A",), (), "ROS name token"),
    ],
)
def test_bad_configurations_say_what_to_change(
    policy: str, tasks: tuple[str, ...], weights: tuple[int, ...], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        PolicyConfig(policy, tasks, weights)


@given(
    weights=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    rounds=st.integers(1, 4),
    on_demand=st.booleans(),
    data=st.data(),
)
def test_shares_are_exactly_the_weights(
    weights: list[int], rounds: int, on_demand: bool, data: st.DataObject
) -> None:
    tasks = tuple(f"t{k}" for k in range(len(weights)))
    demanded = frozenset(data.draw(st.sets(st.sampled_from(tasks), min_size=1))) if on_demand else frozenset()
    policy = RoutingPolicy(PolicyConfig("on_demand" if on_demand else "round_robin", tasks, tuple(weights)))
    share = {t: w for t, w in zip(tasks, weights) if not on_demand or t in demanded}
    got = Counter(policy.next(demanded) for _ in range(rounds * sum(share.values())))
    assert got == {t: rounds * w for t, w in share.items()}


@given(st.lists(st.frozensets(st.sampled_from("abc")), max_size=60), st.tuples(*[st.integers(1, 4)] * 3))
def test_changing_demand_starves_nobody_and_repeats(
    demands: list[frozenset[str]], weights: tuple[int, ...]
) -> None:
    config = PolicyConfig("on_demand", ABC, weights)
    policy, twin = RoutingPolicy(config), RoutingPolicy(config)
    waited: Counter[str] = Counter()
    for demanded in demands:
        task = policy.next(demanded)
        assert task == twin.next(demanded)
        assert (task in demanded) if demanded else task == ""
        for name in "abc":
            waited[name] = waited[name] + 1 if name in demanded and name != task else 0
            assert waited[name] <= sum(weights) - weights["abc".index(name)]
