"""Two sets of figures side by side: a Markdown table and a plot of the ratios."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.scenarios import Goal, Scenario

Figures = dict[str, dict[str, float]]
"""scenario -> figure -> value"""


@dataclass(frozen=True, slots=True)
class Row:
    scenario: str
    figure: str
    kafka: float | None
    ottla: float
    goal: str
    reached: bool | None

    @property
    def ratio(self) -> float | None:
        return self.ottla / self.kafka if self.kafka else None


def rows(scenarios: tuple[Scenario, ...], kafka: Figures, ottla: Figures) -> list[Row]:
    out = []
    for scenario in scenarios:
        goals = {g.figure: g for g in scenario.goals}
        for figure, value in ottla.get(scenario.name, {}).items():
            base = kafka.get(scenario.name, {}).get(figure)
            text, reached = _judge(goals.get(figure), value, base)
            out.append(Row(scenario.name, figure, base, value, text, reached))
    return out


def _judge(goal: Goal | None, value: float, base: float | None) -> tuple[str, bool | None]:
    if goal is None:
        return "", None
    if goal.absolute_max is not None:
        return f"≤ {goal.absolute_max:g}", value <= goal.absolute_max
    if goal.ratio_max is not None:
        return f"ratio ≤ {goal.ratio_max:g}", None if not base else value / base <= goal.ratio_max
    return f"ratio ≥ {goal.ratio_min:g}", None if not base else value / base >= (goal.ratio_min or 0)


def markdown(table: list[Row], header: str) -> str:
    lines = [
        header,
        "",
        "| load | figure | Apache Kafka | Ottla | ratio | goal | |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for row in table:
        kafka = "" if row.kafka is None else f"{row.kafka:.3g}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        mark = {True: "reached", False: "missed", None: ""}[row.reached]
        lines.append(f"| {row.scenario} | {row.figure} | {kafka} | {row.ottla:.3g} | {ratio} | {row.goal} | {mark} |")
    return "\n".join(lines) + "\n"


def plot(table: list[Row], path: Path) -> None:
    """Bars of Ottla over Kafka on a logarithmic axis; 1 is level."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [r for r in table if r.ratio]
    figure, axes = pyplot.subplots(figsize=(9, 0.35 * len(shown) + 1.2))
    colors = {True: "#2a7f62", False: "#b5452c", None: "#8a8a8a"}
    axes.barh(
        [f"{r.scenario}: {r.figure}" for r in shown],
        [r.ratio or 0 for r in shown],
        color=[colors[r.reached] for r in shown],
    )
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("Ottla / Apache Kafka, same run (green: goal reached)")
    axes.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
