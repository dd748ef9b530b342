"""What `swarm routers` does: fits every router to a recorded pool, and shows what each is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from swarm.agents.recording import Recording
from swarm.analysis.routing import (
    Interval,
    Point,
    Routed,
    aiq,
    cost_range,
    interval,
    outcomes_of,
    singles_of,
    split,
    swept,
    voted,
)
from swarm.app.documents import Document
from swarm.app.terminal import plain
from swarm.errors import InputError, MissingPackageError, did_you_mean
from swarm.optimizers.embedding import Encoder
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.routers import ROUTERS, find_router
from swarm.optimizers.routers.asking import Asking
from swarm.optimizers.routers.base import Embedded
from swarm.optimizers.routers.oracle import Oracle
from swarm.optimizers.routers.panel import Panel
from swarm.plots.routing import plot_routers
from swarm.plots.style import save
from swarm.store import Store

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Judged:
    """A router on questions that it was not fitted on."""

    name: str
    accuracy: Interval
    cost: float
    """USD per 1 000 questions."""
    shares: dict[str, float]
    """Expert → its share of the calls; those that were asked none are left out."""
    front: tuple[Point, ...]
    """Its points along the trade-off between score and cost."""
    aiq: float | None
    """Mean accuracy over what may be spent (`aiq`); None where nothing costs anything."""


@dataclass(frozen=True)
class Table:
    """All routers on one recording."""

    source: str
    fitted: int
    judged: int
    routers: tuple[Judged, ...]
    """The best first."""
    singles: dict[str, Point]
    """Expert → what it comes to alone, on the questions that routers are judged by."""
    left_out: dict[str, str]
    """Router, or `costs` → why it is not among them."""

    def document(self) -> Document:
        return {
            "source": self.source,
            "questions": {"fitted": self.fitted, "judged": self.judged},
            "routers": [
                {
                    "router": each.name,
                    "accuracy": each.accuracy.mean,
                    "interval": [each.accuracy.low, each.accuracy.high],
                    "usd_per_1000": each.cost,
                    "aiq": each.aiq,
                    "shares": each.shares,
                    "front": [point._asdict() for point in each.front],
                }
                for each in self.routers
            ],
            "experts": {name: point._asdict() for name, point in self.singles.items()},
            "left_out": self.left_out,
        }

    def show(self, console: Console) -> None:
        from rich.table import Table as Columns
        from rich.text import Text

        columns = Columns(box=None, pad_edge=False)
        columns.add_column("router")
        for title in ("accuracy", "95 %", "USD/1000", "AIQ"):
            columns.add_column(title, justify="right")
        columns.add_column("most asked")
        for each in self.routers:
            low, high = f"{each.accuracy.low:.3f}", f"{each.accuracy.high:.3f}"
            most = sorted(each.shares.items(), key=lambda item: -item[1])[:2]
            asked = ", ".join(f"{plain(name)} {share:.0%}" for name, share in most)
            cost, area = ("-", "-") if each.aiq is None else (f"{each.cost:.3f}", f"{each.aiq:.4f}")
            row = (each.name, f"{each.accuracy.mean:.4f}", f"{low}–{high}", cost, area, asked)
            columns.add_row(*map(Text, row))
        console.print(columns)
        if any(each.aiq is not None for each in self.routers):
            told = "AIQ: mean accuracy over spendings from the cheapest expert's to the dearest's"
            console.print(Text(told, "dim"), soft_wrap=True)
        told = f"fitted on {self.fitted} questions, judged by {self.judged} others"
        console.print(Text(told, "dim"), soft_wrap=True)
        for name, why in self.left_out.items():
            console.print(Text(f"no {name}: {plain(why)}", "dim"), soft_wrap=True)


def read_scale(words: Sequence[str]) -> dict[str, float]:
    """What `--scale BENCHMARK=N` says: benchmark → its highest score.

    Raises:
        InputError: there is no such number.
    """
    scale: dict[str, float] = {}
    for word in words:
        name, _, number = word.partition("=")
        try:
            scale[name] = float(number)
        except ValueError:
            scale[name] = 0.0
        if not name or not 0 < scale[name] < float("inf"):
            raise InputError(
                f"`--scale {word}`: must be a benchmark and its highest score, as in `mt_bench=10`"
            )
    return scale


def judge(
    paths: Sequence[Path],
    *,
    routers: Sequence[str],
    seed: int,
    store: str | None = None,
    scale: Mapping[str, float] | None = None,
) -> Table:
    """Parts the recording in two, fits each router on one part and judges it by the other.

    Args:
        routers: their names; none: all that need not ask experts.
        store: where vectors of questions are kept.
        scale: benchmark → its highest score, where that is not 1.

    Raises:
        InputError: a file or name can't be used.
    """
    for name in routers:
        if name not in ROUTERS:
            hint = did_you_mean(name, ROUTERS) or f": there are {', '.join(ROUTERS)}"
            raise InputError(f"`--router {name}`: there is no such router{hint}")
    recording = Recording.load(paths, models="intersection", scale=scale)
    outcomes = outcomes_of(recording)
    left_out: dict[str, str] = {}
    priced = int(np.isfinite(recording.costs).any(axis=0).sum())
    if 0 < priced < len(outcomes.experts):
        # What is not known is not free.
        experts = len(outcomes.experts)
        outcomes = replace(outcomes, costs=np.zeros_like(outcomes.costs))
        left_out["costs"] = f"{experts - priced} of {experts} experts have none recorded"
    fit_rows, judge_rows = split(outcomes, np.random.default_rng(seed))
    if not len(judge_rows) or not len(fit_rows):
        raise InputError(f"{len(outcomes)} questions are too few to be parted in two: give more")
    fitted, judged = outcomes.take(fit_rows), outcomes.take(judge_rows)
    found: list[Judged] = []
    with Store.open(store or "sqlite://") as kept:
        for name in routers or ROUTERS:
            try:
                each = _judge(name, fitted, judged, seed, kept)
            except (InputError, MissingPackageError) as error:
                if routers:
                    raise
                left_out[name] = str(error)
                continue
            if each is not None:
                found.append(each)
            elif routers:
                raise InputError(f"`--router {name}`: it has to ask experts, a table is not enough")
    found.sort(key=lambda each: (-each.accuracy.mean, each.cost))
    source = ", ".join(str(path) for path in paths)
    return Table(source, len(fitted), len(judged), tuple(found), singles_of(judged), left_out)


def _judge(name: str, fitted: Outcomes, judged: Outcomes, seed: int, store: Store) -> Judged | None:
    kind = find_router(name)
    if issubclass(kind, Asking):
        return None
    router = kind(seed=seed)
    if isinstance(router, Embedded):
        router.encoder = Encoder(store=store)
    router.fit(judged if kind is Oracle else fitted)
    if isinstance(router, Panel) and judged.answers is not None:
        return _voted(router, judged)
    points, first = [], None
    for point, routed in swept(router, judged):
        points.append(point)
        first = first or routed
    assert first is not None
    return _summed(name, first, points, judged)


def _voted(router: Panel, judged: Outcomes) -> Judged:
    """A router that asks several experts is judged by their vote, and pays for all of them."""
    chosen, weights = router.select(judged.questions)
    costs = np.take_along_axis(judged.costs, chosen, axis=1).sum(axis=1)
    routed = Routed(chosen.ravel(), voted(judged, chosen, weights), costs)
    point = Point(routed.cost, routed.accuracy)
    return _summed(f"{router.name} ({chosen.shape[1]} calls)", routed, [point], judged)


def _summed(name: str, routed: Routed, points: Sequence[Point], judged: Outcomes) -> Judged:
    count = np.bincount(routed.columns, minlength=len(judged.experts)) / len(routed.columns)
    return Judged(
        name,
        interval([routed.scores], np.random.default_rng(0)),
        routed.cost,
        {judged.experts[j]: float(count[j]) for j in np.flatnonzero(count)},
        tuple(points),
        aiq(points, *cost_range(judged)) if judged.costs.any() else None,
    )


def draw(table: Table, path: Path) -> None:
    """Cost against accuracy, in the format of the suffix.

    Raises:
        InputError: the suffix is none, or the file can't be written.
        MissingPackageError: matplotlib is not installed.
    """
    check_plot(path)
    fronts = {each.name: each.front for each in table.routers}
    figure = plot_routers(
        fronts, table.singles, title=f"Routers on {plain(Path(table.source).name)}"
    )
    try:
        save(figure, path)
    except OSError as error:
        raise InputError(
            f"`--plot {path}`: can't be written ({error.strerror}): give another file"
        ) from None


def check_plot(path: Path) -> None:
    """Refuses a file that no picture can be written to by its name."""
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"`--plot {path}`: the name must end in {', '.join(FORMATS)}")
