"""Prompts: who is told what, and that no text can break out of its place in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.agents.messages import Message, request_key
from swarm.agents.prompt import CHAT, COMPACT, STYLES, Position
from swarm.agents.role import Role, find_role, library
from swarm.errors import ConfigError, PoolError

SOLVER = Role(name="solver", instructions="Solve {it} %s.")

awkward = st.text() | st.sampled_from(
    ["%", "%s", "%(x)s", "{}", "{response}", "{k}", "\0", "\\", "100 %\n{question}"]
)


def test_where_an_agent_stands():
    assert Position.of(has_predecessors=False, is_end=False) is Position.FIRST
    assert Position.of(has_predecessors=False, is_end=True) is Position.FIRST
    assert Position.of(has_predecessors=True, is_end=False) is Position.MIDDLE
    assert Position.of(has_predecessors=True, is_end=True) is Position.LAST


def test_the_wording_for_chat_models():
    [(system, user)] = CHAT.messages(SOLVER, Position.LAST, ["Why?"], [["Because."], ["So\nwhat"]])
    assert system == Message("system", "Solve {it} %s.")
    assert user.role == "user"
    assert user.content.splitlines() == [
        CHAT.openings[Position.LAST],
        "Previous response 1: Because.",
        "Previous response 2: So",
        "what",
        "Question: Why?",
    ]
    assert len({CHAT.openings[position] for position in Position}) == 3


def test_the_compact_wording():
    [(user,)] = COMPACT.messages(SOLVER, Position.MIDDLE, ["a ?"], [["x\ny\r\nz"], ["w"]])
    assert user == Message("user", "1: x y z\n2: w\nQuestion: a ?\nAnswer:")


def test_a_role_without_instructions_says_nothing():
    [messages] = CHAT.messages(Role(name="mute"), Position.FIRST, ["q"], [])
    assert [message.role for message in messages] == ["user"]


@given(
    st.sampled_from(sorted(STYLES)),
    st.sampled_from(list(Position)),
    st.integers(0, 3).flatmap(lambda k: st.lists(st.tuples(*[awkward] * (k + 1)), max_size=4)),
)
def test_texts_stay_in_their_places(name, position, rows):
    """Whatever is asked and answered stands in the prompt as it is, in order, and once."""
    style = STYLES[name]
    questions = [row[0] for row in rows]
    previous = list(zip(*(row[1:] for row in rows), strict=True)) if rows else []
    prompts = style.messages(SOLVER, position, questions, previous)
    assert len(prompts) == len(rows)
    for messages, (question, *responses) in zip(prompts, rows, strict=True):
        content = messages[-1].content
        assert content == style.render(question, responses, position)
        if style.flatten:
            responses = [" ".join(r.splitlines()) if "\n" in r else r for r in responses]
        # With every text replaced by a word, the rest is the same.
        words = [f"word{i}" for i in range(len(responses))]
        plain = style.render("word!", words, position)
        for word, text in zip([*words, "word!"], [*responses, question], strict=True):
            assert plain.count(word) == 1
            before, plain = plain.split(word)
            assert content.startswith(before + text)
            content = content[len(before) + len(text) :]
        assert content == plain


@given(st.sampled_from(sorted(STYLES)), st.lists(st.tuples(awkward, awkward), min_size=1))
def test_a_column_is_worded_like_its_questions_one_by_one(name, rows):
    style = STYLES[name]
    questions, responses = map(list, zip(*rows, strict=True))
    together = style.messages(SOLVER, Position.MIDDLE, questions, [responses])
    alone = [
        style.messages(SOLVER, Position.MIDDLE, [question], [[response]])[0]
        for question, response in rows
    ]
    assert together == alone


def test_columns_of_different_lengths_are_a_mistake():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        CHAT.messages(SOLVER, Position.MIDDLE, ["a", "b"], [["x"]])


texts = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(max_size=5)))


@given(texts, texts, st.integers(0, 3), st.integers(0, 3))
def test_requests_have_one_key_only_if_they_are_the_same(one, other, draw, another):
    messages = [tuple(Message(*pair) for pair in each) for each in (one, other)]
    keys = request_key(bytes(32), messages[0], draw), request_key(bytes(32), messages[1], another)
    assert (keys[0] == keys[1]) == ((one, draw) == (other, another))
    assert keys[0] != request_key(bytes(31) + b"x", messages[0], draw)


def test_the_library_of_roles():
    roles = library()
    assert {"solver", "critic", "judge", "verifier"} <= set(roles)
    for name, role in roles.items():
        assert role.name == name
        assert role.instructions
        assert role.description
        assert "\n" not in role.description
    assert find_role("solver") == roles["solver"]
    own = Role(name="solver", instructions="Mine.")
    assert find_role("solver", {"solver": own}) == own
    with pytest.raises(PoolError, match=r"role `critc` is not known \(did you mean `critic`\?\)"):
        find_role("critc")


def test_a_role_from_a_file(tmp_path):
    path = tmp_path / "parrot.toml"
    path.write_text('name = "parrot"\ninstructions = "Repeat."\n')
    assert Role.load(path) == Role(name="parrot", instructions="Repeat.")
    path.write_text('name = "parrot"\ninstruction = "Repeat."\n')
    with pytest.raises(
        ConfigError, match=r"`instruction`: unknown \(did you mean `instructions`\?\)"
    ):
        Role.load(path)


def test_what_a_reasoning_model_thought_is_not_handed_on():
    thought = "<think>is it 3? no </think>\n\nIt is 4."
    prompt = CHAT.render("2 + 2?", [thought, "5"], Position.LAST)
    assert "Previous response 1: It is 4.\nPrevious response 2: 5" in prompt
    assert "is it 3" not in prompt
    unfinished = "<think>is it 3?"
    assert unfinished in CHAT.render("2 + 2?", [unfinished], Position.LAST)
