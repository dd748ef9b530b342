"""Answers kept in memory: found while there is room, and never more than there is room for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.agents.messages import Response, Usage
from swarm.runtime.cache import MemoryCache


def response(text):
    return Response(text, Usage(1, 1))


keys = st.integers(0, 9).map(lambda n: bytes([n]) * 32)
texts = st.integers(0, 2000).map(lambda n: "x" * n)


def size(cache):
    found = cache.known([bytes([n]) * 32 for n in range(10)])
    return sum(MemoryCache.ENTRY + len(answer.text) for answer in found.values())


@given(st.lists(st.tuples(keys, texts)), st.integers(0, 8000))
def test_it_never_takes_more_room_than_it_has(answers, room):
    cache = MemoryCache(room)
    kept = {}
    for key, text in answers:
        cache.keep([(key, response(text))])
        kept.setdefault(key, text)
        assert size(cache) <= room
        if cache.known([key]):
            assert cache.known([key])[key].text in {t for k, t in answers if k == key}


@given(st.lists(st.tuples(keys, texts)))
def test_with_room_enough_everything_is_known_as_it_was_first_kept(answers):
    cache = MemoryCache()
    cache.keep((key, response(text)) for key, text in answers)
    first = dict(reversed(answers))
    assert {key: found.text for key, found in cache.known(list(first)).items()} == first


def test_what_was_not_wanted_for_longest_is_forgotten():
    cache = MemoryCache(3 * MemoryCache.ENTRY)
    for name in "abc":
        cache.keep([(name.encode(), response(""))])
    cache.known([b"a"])
    cache.keep([(b"d", response(""))])
    assert set(cache.known([b"a", b"b", b"c", b"d"])) == {b"a", b"c", b"d"}
