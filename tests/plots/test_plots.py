"""Pictures: every one can be drawn of every job that has its data, and shows that data."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_up_job import EXPERTS, evaluation, record_job, right

import swarm
from swarm import plots
from swarm.analysis import JobHistory
from swarm.errors import InputError, MissingPackageError
from swarm.plots import (
    PLOTS,
    RUN_PLOTS,
    plot_calls,
    plot_coefficients,
    plot_contribution,
    plot_convergence,
    plot_graphs,
    plot_learning,
    plot_positions,
    plot_timeline,
)
from swarm.plots.positions import project
from swarm.plots.style import save, spread
from swarm.plots.timeline import _Clock, _Span
from swarm.store import BatchRecord, BatchView


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with swarm.Store.open(tmp_path_factory.mktemp("plots") / "swarm.db") as store:
        run = record_job(store, iterations=5)
        best = JobHistory.load(store, run).best.graph
        tested = store.start_run("evaluation", "test", {"task": "relay"})
        store.add_evaluation(tested, evaluation(best, right(0.5, 200), "test"))
        record_job(store, joint=False, iterations=4, task="odd $names_1$ & <b>")
        record_job(store, iterations=1)
        yield store


@pytest.fixture(scope="module")
def joint(store) -> JobHistory:
    return JobHistory.load(store, 1)


@pytest.fixture(scope="module")
def role_only(store) -> JobHistory:
    return JobHistory.load(store, 3)


def texts(figure) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_every_picture_is_drawn_by_the_command() -> None:
    exported = {name for name in plots.__all__ if name.startswith("plot_")}
    assert {plot.__name__ for plot in (*PLOTS.values(), *RUN_PLOTS.values())} == exported


@pytest.mark.parametrize("name", PLOTS)
def test_pictures_say_run_and_task_and_can_be_saved(name, joint, tmp_path) -> None:
    figure = PLOTS[name](joint)
    assert "run 1 on relay" in texts(figure)
    for suffix in ("png", "svg"):
        path, again = tmp_path / f"{name}.{suffix}", tmp_path / f"again.{suffix}"
        save(figure, path)
        save(PLOTS[name](joint), again)
        assert path.read_bytes() == again.read_bytes(), "a picture is what its data is"


@pytest.mark.parametrize("run", [3, 4])
@pytest.mark.parametrize("name", PLOTS)
def test_jobs_that_lack_something(name, run, store, tmp_path) -> None:
    job = JobHistory.load(store, run)
    if run == 3 and name in ("contribution", "coefficients", "coefficients_by_iteration"):
        with pytest.raises(InputError, match="run 3 has no weight-steps"):
            PLOTS[name](job)
        return
    figure = PLOTS[name](job)
    assert f"run {run} on {job.task}" in texts(figure)
    save(figure, tmp_path / "picture.svg")


def test_convergence_shows_every_score(joint) -> None:
    [axes] = plot_convergence(joint).axes
    shown = sorted(y for dots in axes.collections[:3] for _, y in dots.get_offsets())
    steps = [s for i in joint.iterations for s in (i.role, i.weight) if s is not None]
    assert shown == pytest.approx(sorted(score for step in steps for score in step.scores))
    said = texts(axes)
    assert f"best on dev\n{joint.best.score:.3f}" in said
    assert "best graph on test\n0.500" in said
    assert axes.get_ylabel() == "score on dev (40 questions)"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_tests_of_the_worst_and_the_best(share, tmp_path) -> None:
    with swarm.Store.open(tmp_path / "swarm.db") as store:
        run = record_job(store, iterations=1)
        best = JobHistory.load(store, run).best.graph
        tested = store.start_run("evaluation", "test", {"task": "relay"})
        store.add_evaluation(tested, evaluation(best, right(share, 4), "test"))
        assert f"best graph on test\n{share:.3f}" in texts(
            plot_convergence(JobHistory.load(store, run))
        )


def test_graphs_show_each_change(joint) -> None:
    figure = plot_graphs(joint)
    changes = joint.changes()
    assert len(figure.axes) == len(changes)
    for axes, change in zip(figure.axes, changes, strict=True):
        said = {text.get_text() for text in axes.texts}
        assert {agent.name for agent in change.graph.agents} <= said
        assert f"iteration {change.iteration} · {change.score:.3f}" in texts(figure)


def test_contribution_draws_each_expert(joint, role_only) -> None:
    [axes] = plot_contribution(joint).axes
    assert len(axes.lines) == len(EXPERTS)
    assert all(expert in texts(axes) for expert in EXPERTS)
    with pytest.raises(InputError, match="run 3 has no weight-steps"):
        plot_contribution(role_only)


def test_calls_add_up(joint) -> None:
    [axes] = plot_calls(joint).axes
    last = joint.iterations[-1]
    assert sum(bar.get_height() for bar in axes.patches) == last.calls
    assert f"{last.asked:,} ({last.asked / last.calls:.1%})" in texts(axes)


def test_coefficients_are_the_last_ones(joint) -> None:
    axes, _ = plot_coefficients(joint).axes
    [image] = axes.images
    [*_, last] = [i.weight for i in joint.iterations if i.weight is not None]
    assert np.array_equal(image.get_array(), last.coefficients)


def test_a_swarm_without_paths(role_only) -> None:
    moving = plot_positions(role_only)
    assert "○ first" in texts(moving)
    role_only.run.settings["search"] = "random"
    still = plot_positions(role_only)
    del role_only.run.settings["search"]
    assert "○ first" not in texts(still)
    assert not still.axes[0].lines


positions = arrays(np.float64, (3, 4, 2, 2), elements=st.floats(-10, 10))


@given(positions)
def test_projection_shrinks_distances_at_most(x) -> None:
    points, explained = project(x)
    flat, plane = x.reshape(12, 4), points.reshape(12, 2)
    full = np.linalg.norm(flat[:, None] - flat, axis=-1)
    assert (np.linalg.norm(plane[:, None] - plane, axis=-1) <= full + 1e-6).all()
    assert 0 <= explained[1] <= explained[0] <= 1 + 1e-9


def test_projection_of_a_plane_is_the_plane() -> None:
    flat = np.random.default_rng(0).random((5, 3, 2)) @ np.random.default_rng(1).random((2, 16))
    points, explained = project(flat.reshape(5, 3, 4, 4))
    assert explained.sum() == pytest.approx(1)
    distances = [np.linalg.norm(a[:, None] - a, axis=-1) for a in (flat.reshape(15, 16),)]
    plane = points.reshape(15, 2)
    assert np.linalg.norm(plane[:, None] - plane, axis=-1) == pytest.approx(distances[0])


labels = st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 0.1)), min_size=1, max_size=9)


@given(labels)
def test_labels_keep_their_order_and_do_not_overlap(given_labels) -> None:
    heights, sizes = map(np.array, zip(*given_labels, strict=True))
    placed = spread(heights, sizes, 0.0, 1.0)
    order = np.argsort(heights, kind="stable")
    gaps = np.diff(placed[order]) - (sizes[order][1:] + sizes[order][:-1]) / 2
    assert (gaps >= -1e-9).all()
    assert (placed - sizes / 2 >= -1e-9).all()
    assert (placed + sizes / 2 <= 1 + 1e-9).all()
    if (np.abs(np.diff(np.sort(heights))) > 0.1).all() and (
        (heights > 0.1) & (heights < 0.9)
    ).all():
        assert placed == pytest.approx(heights), "what has room stays where it is"


def test_without_matplotlib(joint, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for plot in PLOTS.values():
        with pytest.raises(MissingPackageError, match=r"pip install 'agent-swarm\[plot\]'"):
            plot(joint)


def batch(base: str, at: float, *, loading: float = 0.0, **told) -> BatchView:
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=at)
    record = BatchRecord(
        1, base, ("e",), 1, 1, 1, 2.0, loading, loading > 0, moment, 1 << 20, **told
    )
    return BatchView(1, 7, record)


@pytest.fixture
def timeline(store):
    return [
        batch("fake:a/one", 1, loading=1),
        batch("fake:a/two", 4, loading=1, prefetched=True, evicted=("fake:a/one",)),
        batch("fake:a/two", 90_000),
    ]


def test_the_timeline_shows_batches_loads_and_what_stays_loaded(store, timeline, tmp_path) -> None:
    figure = plot_timeline(store.run(1), timeline)
    [axes] = figure.axes
    bars = {
        tuple(np.round(spans.get_facecolor()[0][:3], 2)): [
            (row[0][1] + row[1][1], row[0][0], row[2][0])
            for row in (path.vertices for path in spans.get_paths())
        ]
        for spans in axes.collections
    }
    assert sorted(map(len, bars.values())) == [1, 1, 2, 3], "loads, read ahead, loaded, batches"
    [(_, begin, end)] = bars[0.84, 0.37, 0.0]  # the first load
    assert (begin, end) == pytest.approx((0, 1))
    said = texts(figure)
    assert "Timeline · run 1 on relay" in said
    assert "3 batches in 6.0 s, 2 loads in 2.0 s (25%)" in said
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]
    assert "idle time cut out" in axes.get_xlabel()
    assert axes.get_xlim()[1] < 20, "a day between two sessions is not drawn"
    for suffix in ("png", "svg"):
        save(figure, tmp_path / f"timeline.{suffix}")
        save(plot_timeline(store.run(1), timeline), tmp_path / f"again.{suffix}")
        assert (tmp_path / f"timeline.{suffix}").read_bytes() == (
            tmp_path / f"again.{suffix}"
        ).read_bytes()


def test_learning_is_drawn_figure_by_figure(store) -> None:
    told = [
        {"epoch": 1, "score": 0.5, "cost": None, "kept": False},
        {"epoch": 2, "score": 0.75, "cost": None, "kept": True},
    ]
    run = store.run(1)
    figure = plot_learning(replace(run, summary={"learning": told}), [])
    [panel] = figure.axes
    assert panel.get_title(loc="left") == "score"
    assert [line.get_ydata().tolist() for line in panel.lines] == [[0.5, 0.75], [0.75]]
    assert "0.75" in [text.get_text() for text in panel.texts]
    with pytest.raises(InputError, match="does not say how it learned"):
        plot_learning(run, [])


def test_there_is_no_timeline_of_nothing(store) -> None:
    with pytest.raises(InputError, match="run 1 asked no engine"):
        plot_timeline(store.run(1), [])


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 100)), min_size=1))
def test_cutting_out_idle_time_keeps_the_order_and_what_took_time(spans) -> None:
    clock = _Clock([_Span(0, begin, begin + lasts) for begin, lasts in spans])
    moments = sorted({t for begin, lasts in spans for t in (begin, begin + lasts)})
    shown = [float(clock(moment)) for moment in moments]
    assert shown == sorted(shown)
    for begin, lasts in spans:
        assert float(clock(begin + lasts) - clock(begin)) == pytest.approx(lasts, abs=1e-6)
