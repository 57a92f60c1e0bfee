"""What the bench says of two sets of figures."""

from __future__ import annotations

import pytest

from bench.report import distance_from_limit, distance_from_load, left_to_gain, replaced, rows, table
from bench.scenarios import Goal, Scenario


def scenario(*goals: Goal) -> Scenario:
    return Scenario("load", lambda server, tools: {}, goals)


def test_a_goal_is_judged_by_the_ratio_of_one_run() -> None:
    goals = (Goal("cost", ratio_max=0.5), Goal("speed", ratio_min=2.0), Goal("memory", absolute_max=60))
    found = rows(
        [scenario(*goals)],
        {"load": {"cost": 10.0, "speed": 10.0, "memory": 500.0, "other": 1.0}},
        {"load": {"cost": 4.0, "speed": 16.0, "memory": 60.0, "other": 1.0}},
    )
    assert [(row.figure, row.reached, row.share) for row in found] == [
        ("cost", True, 0.8),
        ("speed", False, 1.25),
        ("memory", True, 1.0),
        ("other", None, None),
    ]
    assert "| load | speed | 10 | 16 | 1.60 | ratio ≥ 2 | missed |" in table(found)


def test_without_kafka_only_absolute_goals_are_judged() -> None:
    found = rows(
        [scenario(Goal("cost", ratio_max=0.5), Goal("memory", absolute_max=50))],
        {},
        {"load": {"cost": 4.0, "memory": 60.0}},
    )
    assert [(row.reached, row.ratio) for row in found] == [(None, None), (False, None)]


def test_what_is_farthest_from_its_goal_comes_first() -> None:
    found = rows(
        [scenario(Goal("near", absolute_max=10), Goal("far", absolute_max=10), Goal("done", absolute_max=10))],
        {},
        {"load": {"near": 11.0, "far": 30.0, "done": 1.0, "free": 7.0}},
    )
    assert [line.split(" | ")[1] for line in left_to_gain(found).splitlines()[2:]] == ["far", "near", "done"]


def test_the_limit_is_compared_where_it_was_measured() -> None:
    text = distance_from_limit(
        {"sendfile": 0.2}, {"1000 B records": {"consume CPU s/GB": 0.5, "produce CPU s/GB": 3.0}}
    )
    assert text.splitlines()[2:] == ["| sendfile | 0.20 | 1000 B records | 0.50 | 2.5 |"]


def test_the_load_is_compared_with_what_it_is_without_a_broker_that_keeps_records() -> None:
    text = distance_from_load({"load": {"speed": 40.0}}, {}, {"load": {"speed": 30.0, "cost": 1.0}})
    assert text.splitlines()[2:] == ["| load | speed |  | 30 | 40 | 0.75 |"]
    text = distance_from_load({"load": {"speed": 40.0}}, {"load": {"speed": 20.0}}, {"load": {"speed": 40.0}})
    assert text.splitlines()[2:] == ["| load | speed | 20 | 40 | 40 | 1.00 |"]


def test_figures_go_where_the_page_has_a_place_for_them() -> None:
    page = "before\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n"
    assert replaced(page, "figures", "new\n") == "before\n<!-- figures -->\nnew\n<!-- /figures -->\nafter\n"
    with pytest.raises(ValueError, match="no place"):
        replaced("nothing", "figures", "new\n")
