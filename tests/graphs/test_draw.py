"""Pictures: safe with any name, nothing on top of anything else, the end node marked."""

import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import MissingPackageError
from swarm.graphs import Agent, AgentGraph, chain, complete, debate, decode, layered, single, star
from swarm.graphs.layout import place

HOSTILE = [
    '"]; <script>alert(1)</script>',
    "a & b",
    "`code` **bold** _x_ \\",
    "1. one",
    "- item",
    "end",
    "]]>",
    "#35;",
    "%%{init}%%",
    "$x^2$",
    "模型",
    "'' onload='x",
]
names = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Cn", "Zl", "Zp"]), min_size=1
).filter(str.strip)
SVG = "{http://www.w3.org/2000/svg}"

random_graphs = st.builds(
    lambda n, seed, successors: decode(
        np.random.default_rng(seed).random((n, n)),
        [f"expert-{i}" for i in range(n)],
        p=1.0,
        rng=np.random.default_rng(seed),
        successors=successors,
    ),
    st.integers(1, 16),
    st.integers(0, 2**32),
    st.integers(1, 4),
)


def texts(svg):
    root = ElementTree.fromstring(svg)
    assert {element.tag for element in root.iter()} <= {
        SVG + tag for tag in ("svg", "title", "g", "path", "rect", "text")
    }
    return [element.text for element in root.iter(SVG + "text")]


@given(st.lists(names, min_size=1, max_size=4, unique=True), names)
def test_svg_is_xml_and_shows_any_name(labels, expert):
    graph = AgentGraph(
        agents=tuple(Agent(name=name, expert=expert) for name in labels),
        edges=tuple((name, labels[-1]) for name in labels[:-1]),
    )
    shown = texts(graph.to_svg())
    for name in labels:
        assert any(
            name == text or (text.endswith("…") and name.startswith(text[:-1])) for text in shown
        )


@pytest.mark.parametrize("name", HOSTILE)
def test_svg_keeps_hostile_names_as_text(name):
    svg = star([name, "plus"]).to_svg()
    assert "<script" not in svg
    titles = [e.text for e in ElementTree.fromstring(svg).iter(SVG + "title")]
    assert f"{name}: solver played by {name}" in titles


@given(st.one_of(names, st.sampled_from(HOSTILE)))
def test_mermaid_labels_are_escaped_and_complete(name):
    lines = star([name, "plus"]).to_mermaid().splitlines()
    assert len(lines) == 5
    label = re.fullmatch(r'    n0\("(.*)"\)', lines[1])[1]
    assert not set(label) & set('"<>`*&\\[](){}$%|=~')
    assert re.sub(r"#(\d+);", lambda m: chr(int(m[1])), label) == name


def test_mermaid():
    graph = star(["plus", "minus", "minus"], roles=["solver", "critic", "solver"])
    assert graph.to_mermaid() == (
        "flowchart LR\n"
        '    n0("plus")\n'
        '    n1("minus<br/>critic")\n'
        '    n2(["minus-2<br/>minus"]):::final\n'
        "    n0 --> n2\n"
        "    n1 --> n2\n"
        "    classDef final fill:#1d4ed8,stroke:#1e3a8a,color:#ffffff\n"
    )


def test_text():
    assert layered([["a", "b"], ["c", "d"], ["e"]], roles=["solver"] * 4 + ["judge"]).to_text() == (
        "e (judge)\n├── c\n│   ├── a\n│   └── b\n└── d\n    ├── a\n    └── b\n"
    )
    roles = ["solver", "solver", "critic", "solver"]
    assert complete(["a", "b", "b", "d"], roles=roles).to_text(ascii_only=True) == (
        "d\n"
        "|-- a\n"
        "|-- b\n"
        "|   `-- a\n"
        "`-- b-2 (b, critic)\n"
        "    |-- a\n"
        "    `-- b ^\n"
    )  # fmt: skip


@given(random_graphs)
def test_text_has_a_line_for_every_edge(graph):
    lines = graph.to_text().splitlines()
    # What was drawn already isn't drawn again below its second mention.
    assert len(lines) == 1 + len(graph.edges)
    assert {line.lstrip("│├└─ ").removesuffix(" ↑") for line in lines} == set(graph.experts)


def test_text_of_a_very_long_chain():
    assert len(chain(["x"] * 1000).to_text().splitlines()) == 1000


@given(random_graphs, st.booleans())
@settings(max_examples=50)
def test_nothing_lies_on_top_of_anything_else(graph, down):
    layout = place(graph, 100, 40, down=down)
    assert {box.agent for box in layout.boxes} == set(graph.agents)
    for box in layout.boxes:
        assert 0 < box.x < box.x + box.width < layout.width
        assert 0 < box.y < box.y + box.height < layout.height
        for other in layout.boxes:
            apart = abs(box.x - other.x) >= 100 or abs(box.y - other.y) >= 40
            assert apart or box == other
    t = np.linspace(0, 1, 20)[:, None]
    for a, b, c, d in np.array(layout.curves):
        curve = (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
        for box in layout.boxes:
            inside = (curve > (box.x + 1, box.y + 1)) & (curve < (box.x + 99, box.y + 39))
            assert not inside.all(axis=1).any()


@given(random_graphs)
@settings(max_examples=30)
def test_responses_flow_one_way(graph):
    place_of = {box.agent.name: box.x for box in place(graph, 100, 40, down=False).boxes}
    assert all(place_of[u] < place_of[v] for u, v in graph.edges)


def test_trees_are_drawn_without_crossings():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        graph = decode(rng.random((12, 12)), [f"{i}" for i in range(12)], p=1.0, rng=rng)
        boxes = {box.agent.name: box for box in place(graph, 100, 40, down=False).boxes}
        for u, v in graph.edges:
            for s, t in graph.edges:
                if boxes[u].x == boxes[s].x and boxes[u].y < boxes[s].y:
                    assert boxes[v].y <= boxes[t].y


def test_direction():
    def shape(svg):
        root = ElementTree.fromstring(svg)
        return float(root.get("width")), float(root.get("height"))

    five = chain(["plus", "minus", "times", "copy", "sort"])
    right, down = shape(five.to_svg(direction="right")), shape(five.to_svg(direction="down"))
    assert right[0] > right[1]
    assert down[0] < down[1]
    assert shape(five.to_svg()) == right
    # What is too wide for a page goes down it.
    assert shape(chain(["plus"] * 30).to_svg())[0] < 900
    assert shape(star(["plus"] * 30).to_svg())[0] < 900


def test_only_the_end_node_is_filled_with_colour():
    root = ElementTree.fromstring(debate(["plus", "minus"], 2, "judge").to_svg())
    fills = [rect.get("fill") for rect in root.iter(SVG + "rect")]
    assert fills.count("#1d4ed8") == 1
    assert len(fills) == 5


def test_files(tmp_path):
    graph = single("é")
    assert (tmp_path / "graph.svg").write_text(graph.to_svg(tmp_path / "same.svg"), "utf-8")
    assert (tmp_path / "same.svg").read_bytes() == (tmp_path / "graph.svg").read_bytes()


def test_png(tmp_path):
    pytest.importorskip("matplotlib")
    # A dollar sign would start a formula, if names were read as such.
    debate(["$x^", "minus"], 2, "judge").to_png(tmp_path / "graph.png")
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")


def test_png_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MissingPackageError, match=r"agent-swarm\[plot\]"):
        single("plus").to_png(tmp_path / "graph.png")
