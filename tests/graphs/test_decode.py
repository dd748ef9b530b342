"""G-Decode: always a valid graph, the same for the same seed, and what the paper says."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from swarm.errors import GraphError, InputError
from swarm.graphs import Agent, decode, decode_parents, decode_swarm, star
from swarm.graphs.decode import pick

EXPERTS = [f"expert-{i}" for i in range(64)]

finite = st.floats(allow_nan=False, allow_infinity=False)
dyadic = st.integers(-24, 24).map(lambda i: i / 8)
"""Numbers whose sums are exact, in whatever order they are added."""
shares = st.floats(0, 1)
seeds = st.integers(0, 2**32)


few = st.integers(0, 3)


def matrices(entries, particles=few):
    return st.tuples(particles, st.integers(1, 7)).flatmap(
        lambda shape: arrays(np.float64, (shape[0], shape[1], shape[1]), elements=entries)
    )


def reference(matrix, p, uniform):
    """G-Decode of one matrix as the paper words it, with floats and lists; uniform (n, 2)."""
    n = len(matrix)
    total = [sum(matrix[i][j] for j in range(n) if j != i) for i in range(n)]

    def choose(scores, number):
        """`scores` by node."""
        top = max(scores.values())
        masses = {i: math.exp(score - top) for i, score in scores.items()}
        ranked = sorted(scores, key=lambda i: (-scores[i], i))
        kept, reached = [], 0.0
        for i in ranked:
            kept.append(i)
            reached += masses[i] / sum(masses.values())
            if reached > p:
                break
        weights = [math.exp(masses[i] / sum(masses.values())) for i in kept]
        number *= sum(weights)
        for i, weight in zip(kept, weights, strict=True):
            number -= weight
            if number < 0:
                return i
        return kept[-1]

    def inverse(s):
        return 1 / s if s >= 1e-3 else (1 + math.log(2 - s / 1e-3)) / 1e-3

    end = choose({i: inverse(total[i]) for i in range(n)}, uniform[0][0])
    parents, order = [-1] * n, [end]
    while len(order) < n:
        number_u, number_v = uniform[len(order)]
        u = choose({i: total[i] for i in range(n) if i not in order}, number_u)
        parents[u] = choose({v: matrix[u][v] for v in sorted(order)}, number_v)
        order.append(u)
    return parents, order


@given(matrices(dyadic), seeds)
def test_p_zero_is_the_plain_algorithm_and_takes_no_chances(adjacency, seed):
    parents, order = decode_parents(adjacency, p=0, rng=np.random.default_rng(seed))
    for k, matrix in enumerate(adjacency.tolist()):
        n = len(matrix)
        assert (parents[k].tolist(), order[k].tolist()) == reference(matrix, 0, [(0, 0)] * n)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 1.0])
def test_every_p_is_the_plain_algorithm_on_the_same_draws(p):
    rng = np.random.default_rng(7)
    adjacency = rng.normal(0.5, 1, (20, 8, 8))
    parents, order = decode_parents(adjacency, p=p, rng=np.random.default_rng(1))
    uniform = np.random.default_rng(1).random((20, 8, 2))
    for k in range(20):
        expected = reference(adjacency[k].tolist(), p, uniform[k].tolist())
        assert (parents[k].tolist(), order[k].tolist()) == expected


@given(matrices(finite), shares, seeds)
def test_any_finite_matrix_becomes_an_in_tree_of_all_agents(adjacency, p, seed):
    count, n, _ = adjacency.shape
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        graphs = decode_swarm(adjacency, EXPERTS[:n], p=p, rng=np.random.default_rng(seed))
    assert len(graphs) == count
    for graph in graphs:
        assert graph.experts == tuple(EXPERTS[:n])
        assert len(graph.edges) == n - 1
        assert all(len(graph.successors(agent.name)) <= 1 for agent in graph.agents)


@given(matrices(finite), shares, seeds)
def test_parents_and_order_agree(adjacency, p, seed):
    parents, order = decode_parents(adjacency, p=p, rng=np.random.default_rng(seed))
    n = adjacency.shape[1]
    for tree, inserted in zip(parents.tolist(), order.tolist(), strict=True):
        assert sorted(inserted) == list(range(n))
        assert tree[inserted[0]] == -1
        for step, u in enumerate(inserted[1:], start=1):
            assert tree[u] in inserted[:step]
    graphs = decode_swarm(adjacency, EXPERTS[:n], p=p, rng=np.random.default_rng(seed))
    for tree, graph in zip(parents.tolist(), graphs, strict=True):
        assert set(graph.edges) == {(EXPERTS[u], EXPERTS[v]) for u, v in enumerate(tree) if v != -1}


@given(matrices(finite), shares, seeds, st.integers(1, 3))
def test_a_particle_does_not_depend_on_the_others(adjacency, p, seed, successors):
    options = {"p": p, "successors": successors}
    agents = EXPERTS[: adjacency.shape[1]]
    together = decode_swarm(adjacency, agents, rng=np.random.default_rng(seed), **options)
    rng = np.random.default_rng(seed)
    alone = [decode(matrix, agents, rng=rng, **options) for matrix in adjacency]
    assert together == alone


@given(matrices(finite, particles=st.just(2)), shares, shares, seeds)
def test_p_does_not_change_how_much_is_drawn(adjacency, p, q, seed):
    one, other = np.random.default_rng(seed), np.random.default_rng(seed)
    decode_parents(adjacency, p=p, rng=one)
    decode_parents(adjacency, p=q, rng=other)
    assert one.bit_generator.state == other.bit_generator.state


@given(matrices(finite), shares)
def test_the_input_is_not_written_to(adjacency, p):
    before = adjacency.copy()
    adjacency.flags.writeable = False
    agents = EXPERTS[: adjacency.shape[1]]
    rng = np.random.default_rng(0)
    decode_parents(adjacency, p=p, rng=rng)
    decode_swarm(adjacency, agents, p=p, rng=rng, threshold=0.5, leave_out=0.5, successors=2)
    assert np.array_equal(adjacency, before)


@given(matrices(finite, particles=st.just(1)), shares, seeds, finite)
def test_the_diagonal_does_not_matter(adjacency, p, seed, value):
    other = adjacency.copy()
    other[:, range(adjacency.shape[1]), range(adjacency.shape[1])] = value
    one = decode_parents(adjacency, p=p, rng=np.random.default_rng(seed))
    two = decode_parents(other, p=p, rng=np.random.default_rng(seed))
    assert np.array_equal(one.parents, two.parents)
    assert np.array_equal(one.order, two.order)


def test_memory_layout_does_not_matter():
    adjacency = np.random.default_rng(0).random((5, 33, 33))
    one = decode_parents(adjacency, p=0.8, rng=np.random.default_rng(1))
    two = decode_parents(np.asfortranarray(adjacency), p=0.8, rng=np.random.default_rng(1))
    assert np.array_equal(one.parents, two.parents)


def test_equal_trees_are_equal_graphs_whatever_the_insertion_order():
    first = np.array([[0, 0, 5.0], [0, 0, 4.0], [0, 0, 0]])
    second = np.array([[0, 0, 4.0], [0, 0, 5.0], [0, 0, 0]])
    found = decode_parents(np.stack([first, second]), p=0, rng=np.random.default_rng(0))
    assert found.order.tolist() == [[2, 0, 1], [2, 1, 0]]
    graphs = [decode(m, list("abc"), p=0, rng=np.random.default_rng(0)) for m in (first, second)]
    assert graphs[0] == graphs[1] == star(list("abc"))


@pytest.mark.parametrize(
    "sums",
    [
        [5.0, 2.0, 3.0],
        [1.0, 0.0, 1e-310],
        [1.0, -1e-9, 0.0],
        [-1.0, -1e200, 1e-300],
        [1e300, 1e-3, 2e-3],
        [2e-3, 1e-3 - 1e-12, 1e-3],
    ],
)
def test_the_end_node_is_who_gives_least_away_also_below_zero(sums):
    adjacency = np.zeros((3, 3))
    adjacency[[0, 1, 2], [1, 2, 0]] = sums
    assert decode(adjacency, list("abc"), p=0, rng=np.random.default_rng(0)).end.name == "b"


def test_an_entry_of_zero_is_as_good_as_any_other():
    # Agent 0 would rather be heard by 1, at 0, than by the end node 2, at -1.
    adjacency = np.array([[0, 0, -1.0], [0, 0, 3.0], [-9.0, -9.0, 0]])
    graph = decode(adjacency, list("abc"), p=0, rng=np.random.default_rng(0))
    assert graph.edges == (("a", "b"), ("b", "c"))


def shares_of(scores, admissible, p, draws=20_000):
    """How the picks are spread when `uniform` runs evenly through [0, 1)."""
    uniform = (np.arange(draws) + 0.5) / draws
    picks = pick(
        np.tile(np.asarray(scores, float), (draws, 1)), np.tile(admissible, (draws, 1)), p, uniform
    )
    return np.bincount(picks, minlength=len(scores)) / draws


def test_pick_by_hand():
    everybody = [True, True, True]
    # softmax(2, 1, 0) = .66524, .24473, .09003; the second softmax is over these.
    assert shares_of([0, 2, 1], everybody, 0.0).tolist() == [0, 1, 0]
    assert shares_of([0, 2, 1], everybody, 0.66).tolist() == [0, 1, 0]
    two = 1 / (1 + math.exp(0.24473 - 0.66524))
    assert shares_of([0, 2, 1], everybody, 0.67) == pytest.approx([0, two, 1 - two], abs=1e-3)
    assert shares_of([0, 2, 1], everybody, 0.90) == pytest.approx([0, two, 1 - two], abs=1e-3)
    masses = np.exp([0.09003, 0.66524, 0.24473])
    assert shares_of([0, 2, 1], everybody, 0.92) == pytest.approx(masses / masses.sum(), abs=1e-3)
    assert shares_of([0, 2, 1], everybody, 1.0) == pytest.approx(masses / masses.sum(), abs=1e-3)
    # Without the best, softmax(1, 0) = .73106, .26894.
    masses = np.exp([0.26894, 0.73106])
    expected = [masses[0] / masses.sum(), 0, masses[1] / masses.sum()]
    assert shares_of([0, 2, 1], [True, False, True], 1.0) == pytest.approx(expected, abs=1e-3)


def test_a_prefix_has_to_exceed_p_not_to_reach_it():
    assert shares_of([0, 0], [True, True], 0.5).tolist() == [0.5, 0.5]
    assert shares_of([0, 0], [True, True], 0.49).tolist() == [1, 0]


def test_the_graphs_of_a_swarm_are_spread_as_pick_says():
    """Two agents: who gives less is the end node; 1/s = 1/.5 and 1/1, so scores 2 and 1."""
    adjacency = np.tile([[0, 0.5], [1.0, 0]], (20_000, 1, 1))
    found = decode_parents(adjacency, p=1.0, rng=np.random.default_rng(0))
    first = 1 / (1 + math.exp(1 / (1 + math.e) - math.e / (1 + math.e)))
    assert (found.order[:, 0] == 0).mean() == pytest.approx(first, abs=0.02)


@given(matrices(finite), shares, seeds, finite)
def test_threshold_counts_lower_entries_as_zero(adjacency, p, seed, threshold):
    agents = EXPERTS[: adjacency.shape[1]]
    by_option = decode_swarm(
        adjacency, agents, p=p, rng=np.random.default_rng(seed), threshold=threshold
    )
    by_hand = decode_swarm(
        np.where(adjacency < threshold, 0, adjacency), agents, p=p, rng=np.random.default_rng(seed)
    )
    assert by_option == by_hand


@given(matrices(dyadic), shares, seeds, dyadic, st.integers(1, 3))
def test_leave_out_uses_only_edges_of_that_weight(adjacency, p, seed, least, successors):
    agents = EXPERTS[: adjacency.shape[1]]
    graphs = decode_swarm(
        adjacency,
        agents,
        p=p,
        rng=np.random.default_rng(seed),
        leave_out=least,
        successors=successors,
    )
    for matrix, graph in zip(adjacency, graphs, strict=True):
        # In the order of the pool, though perhaps not all of it.
        assert list(graph.experts) == [name for name in agents if name in graph.experts]
        for u, v in graph.edges:
            assert matrix[agents.index(u), agents.index(v)] >= least
        for name in set(agents) - set(graph.experts):
            assert matrix[agents.index(name), agents.index(graph.end.name)] < least


def test_leave_out_by_example():
    adjacency = np.array([[0, 0.9, 0.1], [0.2, 0, 0.3], [0.1, 0.1, 0]])
    agents, rng = list("abc"), np.random.default_rng(0)
    assert decode(adjacency, agents, p=0, rng=rng, leave_out=0.05).experts == ("a", "b", "c")
    # The end node is c; a comes first and finds only c, at .1; b gets in.
    graph = decode(adjacency, agents, p=0, rng=rng, leave_out=0.25)
    assert graph.edges == (("b", "c"),)
    assert decode(adjacency, agents, p=0, rng=rng, leave_out=9.0).experts == ("c",)


@given(matrices(finite), shares, seeds, st.integers(1, 8))
@settings(max_examples=50)
def test_successors_make_a_dag(adjacency, p, seed, successors):
    n = adjacency.shape[1]
    rng = np.random.default_rng(seed)
    for graph in decode_swarm(adjacency, EXPERTS[:n], p=p, rng=rng, successors=successors):
        fans = sorted(len(graph.successors(agent.name)) for agent in graph.agents)
        # The k-th agent to be inserted finds k others there.
        assert fans == sorted(min(k, successors) for k in range(n))


def test_the_best_successors_come_first():
    adjacency = np.array([[0, 0.0, 0, 0], [0.9, 0, 0, 0], [0.7, 0.8, 0, 0], [0.1, 0.3, 0.2, 0]])
    found = decode(adjacency, list("abcd"), p=0, rng=np.random.default_rng(0), successors=2)
    assert found.end.name == "a"
    assert [agent.name for agent in found.successors("d")] == ["b", "c"]


def test_agents_as_given():
    agents = [Agent(name="one", expert="x", role="critic"), Agent(name="two", expert="x")]
    graph = decode(np.array([[0, 1.0], [0, 0]]), agents, p=0, rng=np.random.default_rng(0))
    assert graph.agents == tuple(agents)
    repeated = decode(np.eye(2), ["x", "x"], p=0, rng=np.random.default_rng(0))
    assert [agent.name for agent in repeated.agents] == ["x", "x-2"]


def bad(index, value):
    matrix = np.zeros((2, 2))
    matrix[index] = value
    return matrix


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"adjacency": bad((0, 1), np.nan)}, r"entry \(0, 1\) of particle 0 is nan"),
        ({"adjacency": bad((1, 0), -np.inf)}, r"entry \(1, 0\) of particle 0 is -inf"),
        ({"adjacency": np.zeros((2, 3))}, r"shape \(1, 2, 3\)"),
        ({"adjacency": np.zeros(4)}, r"shape \(4,\)"),
        ({"adjacency": np.zeros((1, 2, 2))}, "use `decode_swarm`"),
        ({"adjacency": np.zeros((0, 0)), "agents": []}, "n at least 1"),
        ({"adjacency": [["a", "b"], ["c", "d"]]}, "no array of numbers"),
        ({"adjacency": np.zeros((3, 3))}, "for 3 agents, but 2 were given"),
        ({"p": -0.1}, "`p` is -0.1"),
        ({"p": 1.1}, "`p` is 1.1"),
        ({"p": math.nan}, "`p` is nan"),
        ({"successors": 0}, "`successors` is 0"),
        ({"agents": "ab"}, "a list of experts' names"),
        ({"agents": ["a", Agent(name="b", expert="b")]}, "a list of `Agent`s, or"),
        ({"agents": ["a", 5]}, "a list of `Agent`s, or"),
    ],
)
def test_refusals(arguments, message):
    good = {"adjacency": np.zeros((2, 2)), "agents": ["a", "b"], "p": 0.5}
    with pytest.raises(InputError, match=message):
        decode(**{**good, **arguments}, rng=np.random.default_rng(0))


def test_too_many_agents_are_refused_before_the_work():
    with pytest.raises(InputError, match="at most 1000"):
        decode_parents(np.zeros((1, 1001, 1001)), p=0, rng=np.random.default_rng(0))
    with pytest.raises(GraphError, match="two agents"):
        decode(
            np.zeros((2, 2)), [Agent(name="a", expert="a")] * 2, p=0, rng=np.random.default_rng(0)
        )
