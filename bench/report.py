"""Two sets of figures side by side: tables in Markdown, what is left to gain, a plot of the ratios."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.scenarios import Goal, Scenario

Figures = dict[str, dict[str, float]]
"""scenario -> figure -> value"""


def median(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each figure."""
    return {figure: statistics.median(found[figure] for found in rounds) for figure in rounds[0]}


@dataclass(frozen=True, slots=True)
class Row:
    scenario: str
    figure: str
    kafka: float | None
    ottla: float
    goal: str
    share: float | None
    """Of what the goal allows: 1 is just reached, above is missed."""

    @property
    def ratio(self) -> float | None:
        return self.ottla / self.kafka if self.kafka else None

    @property
    def reached(self) -> bool | None:
        return None if self.share is None else self.share <= 1


def rows(scenarios: Iterable[Scenario], kafka: Figures, ottla: Figures) -> list[Row]:
    out = []
    for scenario in scenarios:
        goals = {g.figure: g for g in scenario.goals}
        for figure, value in ottla.get(scenario.name, {}).items():
            base = kafka.get(scenario.name, {}).get(figure)
            text, share = _judge(goals.get(figure), value, base)
            out.append(Row(scenario.name, figure, base, value, text, share))
    return out


def _judge(goal: Goal | None, value: float, base: float | None) -> tuple[str, float | None]:
    if goal is None:
        return "", None
    if goal.absolute_max is not None:
        return f"≤ {goal.absolute_max:g}", value / goal.absolute_max
    if goal.ratio_max is not None:
        return f"ratio ≤ {goal.ratio_max:g}", None if not base else value / base / goal.ratio_max
    return f"ratio ≥ {goal.ratio_min:g}", None if not base or not value else (goal.ratio_min or 0) * base / value


def table(shown: Sequence[Row]) -> str:
    lines = [
        "| load | figure | Apache Kafka | Ottla | ratio | goal | |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for row in shown:
        kafka = "" if row.kafka is None else f"{row.kafka:.3g}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        mark = {True: "reached", False: "missed", None: ""}[row.reached]
        lines.append(f"| {row.scenario} | {row.figure} | {kafka} | {row.ottla:.3g} | {ratio} | {row.goal} | {mark} |")
    return "\n".join(lines) + "\n"


def left_to_gain(shown: Iterable[Row]) -> str:
    """The figures with a goal, the one that is farthest from it first."""
    judged = sorted((row for row in shown if row.share is not None), key=lambda row: -(row.share or 0))
    lines = ["| load | figure | share of what the goal allows |", "|---|---|---:|"]
    lines += [f"| {row.scenario} | {row.figure} | {row.share:.2f} |" for row in judged]
    return "\n".join(lines) + "\n"


def distance_from_limit(limit: Mapping[str, float], ottla: Figures) -> str:
    """CPU of the broker over that of one bare thread which does only what no broker can leave out."""
    lines = ["| what | bare thread, CPU s/GB | load | Ottla, CPU s/GB | times the limit |", "|---|---:|---|---:|---:|"]
    pairs = (("receive, CRC-32C, write", "produce CPU s/GB"), ("sendfile", "consume CPU s/GB"))
    for bare, figure in pairs:
        for scenario in ("100 B records", "1000 B records"):
            value = ottla.get(scenario, {}).get(figure)
            if value is not None and bare in limit:
                times = value / limit[bare]
                lines.append(f"| {bare} | {limit[bare]:.2f} | {scenario} | {value:.2f} | {times:.1f} |")
    return "\n".join(lines) + "\n"


def distance_from_load(unhindered: Figures, kafka: Figures, ottla: Figures) -> str:
    """Figures beside those of the same load on a broker that keeps nothing: more than that no broker can make of it."""
    lines = [
        "| load | figure | Apache Kafka | Ottla | keeps nothing | Ottla's share |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for scenario, figures in unhindered.items():
        for figure, most in figures.items():
            of_kafka, of_ottla = (found.get(scenario, {}).get(figure) for found in (kafka, ottla))
            base = "" if of_kafka is None else f"{of_kafka:.3g}"
            if of_ottla is not None:
                share = of_ottla / most
                lines.append(f"| {scenario} | {figure} | {base} | {of_ottla:.3g} | {most:.3g} | {share:.2f} |")
    return "\n".join(lines) + "\n"


def replaced(text: str, name: str, content: str) -> str:
    """A page with what stands between `<!-- name -->` and `<!-- /name -->` exchanged. Raises: ValueError."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"there is no place for {name}")
    return f"{before}{begin}{content}{end}{after}"


def plot(shown: Sequence[Row], path: Path) -> None:
    """Bars of Ottla over Kafka on a logarithmic axis; 1 is level."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    compared = [r for r in shown if r.ratio]
    figure, axes = pyplot.subplots(figsize=(9, 0.35 * len(compared) + 1.2))
    colors = {True: "#2a7f62", False: "#b5452c", None: "#8a8a8a"}
    axes.barh(
        [f"{r.scenario}: {r.figure}" for r in compared],
        [r.ratio or 0 for r in compared],
        color=[colors[r.reached] for r in compared],
    )
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("Ottla / Apache Kafka, same run (green: goal reached)")
    axes.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=90)
