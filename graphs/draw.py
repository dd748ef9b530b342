"""Graphs as pictures: Mermaid, text for terminals, SVG and PNG.

The end node stands out everywhere. An agent's expert and role are shown where they say more than
its name: an expert of another name, a role other than `solver`.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from xml.sax.saxutils import escape

from swarm.errors import MissingPackageError
from swarm.graphs.graph import DEFAULT_ROLE, Agent, AgentGraph
from swarm.graphs.layout import Box, Layout, Point, place

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Direction = Literal["right", "down"]

_FONT = 14.0
_SMALL_FONT = 11.0
_PADDING = 14.0
_NARROWEST, _WIDEST = 64.0, 210.0
_PAGE = 900.0
"""A picture that would be wider than this to the right goes down the page, if that is narrower."""

_FILL, _STROKE, _INK, _FAINT = "#f8fafc", "#94a3b8", "#0f172a", "#64748b"
_END_FILL, _END_STROKE, _END_INK, _END_FAINT = "#1d4ed8", "#1e3a8a", "#ffffff", "#dbeafe"


def mermaid(graph: AgentGraph) -> str:
    """Mermaid flowchart source. Agents are ``n0``, ``n1``, …; names are labels only, escaped."""
    lines = ["flowchart LR"]
    for i, agent in enumerate(graph.agents):
        label = "<br/>".join(_mermaid_escape(part) for part in _label(agent) if part)
        shape = f'(["{label}"]):::final' if agent == graph.end else f'("{label}")'
        lines.append(f"    n{i}{shape}")
    lines += [f"    n{graph.position(u)} --> n{graph.position(v)}" for u, v in graph.edges]
    lines.append(f"    classDef final fill:{_END_FILL},stroke:{_END_STROKE},color:{_END_INK}")
    return "\n".join(lines) + "\n"


def _mermaid_escape(label: str) -> str:
    # Mermaid reads labels as Markdown and HTML: only letters, digits, spaces, and the punctuation
    # of names between letters or digits, go as they are. https://mermaid.js.org/syntax/flowchart.html
    return re.sub(
        r"(?<![^\W_])[-_.@]|[-_.@](?![^\W_])|[^\w .@-]", lambda m: f"#{ord(m[0])};", label
    )


def text(graph: AgentGraph, *, ascii_only: bool = False) -> str:
    """A tree with the end node on top, under each agent those it reads.

    What is under an agent is drawn once; where it comes up again it is marked with an arrow up.
    `ascii_only` uses ``|--`` instead of box characters (names stay as they are).
    """
    fork, last, bar, up = (
        ("|-- ", "`-- ", "|   ", "^") if ascii_only else ("├── ", "└── ", "│   ", "↑")
    )
    lines: list[str] = []
    drawn: set[str] = set()
    stack = [(graph.end, "", "")]
    while stack:
        agent, lead, indent = stack.pop()
        name, detail = _label(agent, ", ")
        line = f"{lead}{name} ({detail})" if detail else f"{lead}{name}"
        readable = graph.predecessors(agent.name)
        if readable and agent.name in drawn:
            lines.append(f"{line} {up}")
            continue
        lines.append(line)
        drawn.add(agent.name)
        below = [(child, indent + fork, indent + bar) for child in readable]
        if below:
            below[-1] = (readable[-1], indent + last, indent + "    ")
        stack += reversed(below)
    return "\n".join(lines) + "\n"


def svg(graph: AgentGraph, *, direction: Direction | None = None) -> str:
    """An SVG picture in which responses flow to the right or down (None: whichever fits a page).

    Transparent and self-contained: no scripts, fonts or ids, so that many fit on one page.
    """
    layout = lay_out(graph, direction)
    width, height = f"{layout.width:g}", f"{layout.height:g}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" font-family="system-ui, sans-serif" '
        'text-anchor="middle">',
        f"<title>{len(graph.agents)} agents, answer from {escape(graph.end.name)}</title>",
        f'<g fill="none" stroke="{_STROKE}" stroke-width="1.5">',
    ]
    for a, b, c, d in layout.curves:
        lines.append(f'<path d="M{_xy(a)} C{_xy(b)} {_xy(c)} {_xy(d)}"/>')
    lines.append(f'</g>\n<g fill="{_FAINT}">')
    lines += [f'<path d="M{" L".join(map(_xy, head))} Z"/>' for head in layout.heads]
    lines.append("</g>")
    lines += [_svg_box(box, box.agent == graph.end) for box in layout.boxes]
    return "\n".join([*lines, "</svg>\n"])


def _svg_box(box: Box, end: bool) -> str:
    fill, stroke, ink, faint = _colours(end)
    (name, name_y), *rest = _lines(box)
    parts = [
        f"<g><title>{escape(_tooltip(box.agent))}</title>",
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:g}" height="{box.height:g}" '
        f'rx="9" fill="{fill}" stroke="{stroke}" stroke-width="{2 if end else 1.5}"/>',
        f'<text x="{box.x + box.width / 2:.1f}" y="{name_y + 0.35 * _FONT:.1f}" '
        f'font-size="{_FONT:g}" font-weight="600" fill="{ink}">{escape(name)}</text>',
    ]
    for detail, y in rest:
        parts.append(
            f'<text x="{box.x + box.width / 2:.1f}" y="{y + 0.35 * _SMALL_FONT:.1f}" '
            f'font-size="{_SMALL_FONT:g}" fill="{faint}">{escape(detail)}</text>'
        )
    return "".join([*parts, "</g>"])


def png(graph: AgentGraph, path: Path | str, *, direction: Direction | None = None) -> None:
    """The picture of `svg` on white, twice as large; `MissingPackageError` without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingPackageError("matplotlib", "plot", "drawing a PNG") from None

    layout = lay_out(graph, direction)
    # 72 units an inch make font sizes and line widths, which are in points, the SVG's.
    figure = Figure(figsize=(layout.width / 72, layout.height / 72), dpi=144)
    axes = figure.add_axes((0, 0, 1, 1))
    paint(axes, layout, graph.end)
    FigureCanvasAgg(figure).print_png(str(path))


def paint(axes: Axes, layout: Layout, end: Agent, *, scale: float = 1.0) -> None:
    """Draws the picture of `svg` into matplotlib axes, which become as large as the layout.

    `scale` is that of fonts and lines: points a unit of the layout.
    """
    from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
    from matplotlib.path import Path as Curve

    axes.set(xlim=(0, layout.width), ylim=(layout.height, 0))
    axes.axis("off")
    line = 1.5 * scale
    for curve in layout.curves:
        codes = [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4]
        path = Curve(curve, codes)
        axes.add_patch(PathPatch(path, fill=False, edgecolor=_STROKE, linewidth=line))
    for head in layout.heads:
        axes.add_patch(Polygon(head, facecolor=_FAINT, linewidth=0))
    for box in layout.boxes:
        fill, stroke, ink, faint = _colours(box.agent == end)
        axes.add_patch(
            FancyBboxPatch(
                (box.x, box.y),
                box.width,
                box.height,
                boxstyle="round,pad=0,rounding_size=9",
                facecolor=fill,
                edgecolor=stroke,
                linewidth=2 * scale if box.agent == end else line,
            )
        )
        for number, (label, y) in enumerate(_lines(box)):
            axes.text(
                box.x + box.width / 2,
                y,
                label,
                size=scale * (_SMALL_FONT if number else _FONT),
                weight="normal" if number else "bold",
                color=faint if number else ink,
                ha="center",
                va="center_baseline",
                parse_math=False,
            )


def lay_out(graph: AgentGraph, direction: Direction | None) -> Layout:
    """Boxes as large as their labels need, the same for all."""
    labels = [_label(agent) for agent in graph.agents]
    text_width = max(
        max(_width(name, _FONT), _width(detail, _SMALL_FONT)) for name, detail in labels
    )
    width = min(max(text_width + 2 * _PADDING, _NARROWEST), _WIDEST)
    height = 46.0 if any(detail for _, detail in labels) else 34.0
    if direction is not None:
        return place(graph, width, height, down=direction == "down")
    right = place(graph, width, height, down=False)
    if right.width <= _PAGE:
        return right
    return min(right, place(graph, width, height, down=True), key=lambda layout: layout.width)


def _label(agent: Agent, separator: str = " · ") -> tuple[str, str]:
    """The name, and in small what the name doesn't say."""
    detail = [agent.expert] if agent.expert != agent.name else []
    if agent.role not in (DEFAULT_ROLE, agent.name):
        detail.append(agent.role)
    return agent.name, separator.join(detail)


def _tooltip(agent: Agent) -> str:
    return f"{agent.name}: {agent.role} played by {agent.expert}"


def _lines(box: Box) -> list[tuple[str, float]]:
    """What is written in a box, shortened to fit, and the height of each line's middle."""
    name, detail = _label(box.agent)
    middle, room = box.y + box.height / 2, box.width - _PADDING
    if not detail:
        return [(_shortened(name, _FONT, room), middle)]
    return [
        (_shortened(name, _FONT, room), middle - 8.0),
        (_shortened(detail, _SMALL_FONT, room), middle + 9.5),
    ]


def _shortened(label: str, size: float, room: float) -> str:
    if _width(label, size) <= room:
        return label
    while _width(label + "…", size) > room:
        label = label[:-1]
    return label + "…"


def _width(label: str, size: float) -> float:
    """An estimate on the safe side: which font will be there is unknown."""
    return size * sum(
        1.05 if unicodedata.east_asian_width(c) in "WF" else 0.86 if c in "mwMW@%" else 0.62
        for c in label
    )


def _colours(end: bool) -> tuple[str, str, str, str]:
    """Of filling, border, name and detail."""
    if end:
        return _END_FILL, _END_STROKE, _END_INK, _END_FAINT
    return _FILL, _STROKE, _INK, _FAINT


def _xy(point: Point) -> str:
    return f"{point[0]:.1f},{point[1]:.1f}"
