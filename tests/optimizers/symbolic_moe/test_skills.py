"""Keywords are what an annotator says more than once; new ones stand for the nearest known."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from swarm.optimizers.skills import annotation_prompt, keywords, nearest, words_of


def test_what_is_said_more_than_once_stays():
    said = ["Algebra, Geometry", "algebra; topology", "1. Geometry\n2. Algebra", "none of these"]
    assert keywords(said) == ["algebra", "geometry"]
    assert keywords(said, said=1) == ["algebra", "geometry", "topology", "none of these"]
    assert keywords(said, said=4) == []


def test_one_answer_that_repeats_itself_has_said_it_once():
    assert keywords(["algebra, algebra, algebra"]) == []


def test_numbers_bullets_and_thoughts_are_no_part_of_a_keyword():
    listed = "<think>calculus, calculus</think>\n- Organic  Chemistry.\n 2) *C++*\n"
    assert keywords([listed] * 2) == ["organic chemistry", "c"]


def test_long_ones_are_sentences():
    assert keywords(["x" * 20 + ", " + "y" * 21] * 2) == ["x" * 20]


@given(st.lists(st.text(max_size=60), max_size=6), st.integers(1, 4))
def test_any_answer_can_be_read(texts, said):
    found = keywords(texts, said=said)
    assert len(set(found)) == len(found)
    assert all(0 < len(word) <= 20 and word == word.strip() for word in found)
    assert set(keywords(texts, said=said + 1)) <= set(found)


def test_the_annotator_is_shown_the_question():
    assert "What is 2 + 2?" in annotation_prompt("What is 2 + 2?")[-1].content


def test_words():
    assert words_of("a Plus 03 03 ; b ?") == ["a", "plus", "03", "b"]


def encode(texts):
    """By how often the first letters of the alphabet occur."""
    rows = np.array([[text.count(c) + 1e-3 for c in "abcdef"] for text in texts], np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_known_skills_are_themselves_and_new_ones_the_nearest():
    known = ["aaa", "bbb", "aab"]
    vectors = encode(known)
    assert nearest(["bbb", "aaab", "ccb"], known, vectors, encode) == {
        "bbb": 1,
        "aaab": 2,
        "ccb": 1,
    }


def test_nothing_is_embedded_where_all_is_known():
    def refuse(texts):
        raise AssertionError(texts)

    assert nearest(["a", "a"], ["a"], encode(["a"]), refuse) == {"a": 0}
    assert nearest(["a"], [], np.zeros((0, 6), np.float32), refuse) == {}
