"""Stop strings: the same text however it is cut into pieces."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from swarm.agents.engines.stops import Cut, cut

TEXTS = st.text("abc", max_size=30)
STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)


@given(text=TEXTS, stops=STOPS, at=st.lists(st.integers(0, 30), max_size=8))
def test_pieces_make_up_what_the_whole_is_cut_to(text, stops, at):
    places = [0, *sorted(min(i, len(text)) for i in at), len(text)]
    cutting, given_out = Cut(stops), []
    for begin, end in pairwise(places):
        given_out.append(cutting.feed(text[begin:end]))
        said = "".join(given_out)
        assert text.startswith(said)
        assert not any(stop in said for stop in stops)
    given_out.append(cutting.rest())
    assert ("".join(given_out), cutting.stopped) == cut(text, stops)


@given(text=TEXTS, stops=STOPS)
def test_a_text_ends_where_a_stop_string_is_first_complete(text, stops):
    ends = [len(text[: m.start()]) + len(stop)
            for stop in stops for m in re.finditer(f"(?={re.escape(stop)})", text)]  # fmt: skip
    left, stopped = cut(text, stops)
    assert stopped == bool(ends)
    if ends:
        assert any(left + stop == text[: min(ends)] for stop in stops)
    else:
        assert left == text
