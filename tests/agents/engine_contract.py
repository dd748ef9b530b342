"""What every engine must do (`swarm.agents.engines.base`), as tests: subclass `EngineContract`."""

from __future__ import annotations

import asyncio
import random

import pytest

from swarm.agents.expert import Sampling
from swarm.agents.messages import Message, Request, Response, Usage
from swarm.errors import EngineError


def ask(*texts):
    return tuple(Message("user", text) for text in texts)


class EngineContract:
    """Give the fixtures; all experts are of one base."""

    samples = True
    """Whether answers are drawn where the temperature is above 0."""

    @pytest.fixture
    def engine(self):
        raise NotImplementedError

    @pytest.fixture
    def experts(self):
        """Several, that give each its own answer to `prompts`; greedy, with 12 tokens at most."""
        raise NotImplementedError

    @pytest.fixture
    def prompts(self):
        """Several texts of different lengths."""
        raise NotImplementedError

    @pytest.fixture
    def hopeless(self):
        """A request that must fail, and what it must be told."""
        raise NotImplementedError

    @pytest.fixture
    def broken(self):
        """An expert whose base can't be asked at all."""
        raise NotImplementedError

    @staticmethod
    def sampled(expert, **changes):
        return expert.model_copy(update={"sampling": expert.sampling.model_copy(update=changes)})

    def generate(self, engine, requests):
        """As a scheduler does: load, plan, generate batch by batch."""

        async def work():
            expert = requests[0].expert
            await engine.load(
                expert.base, list({r.expert.name: r.expert for r in requests}.values())
            )
            answers = [None] * len(requests)
            for batch in await engine.plan(requests):
                for i, answer in zip(
                    batch, await engine.generate([requests[i] for i in batch]), strict=True
                ):
                    assert answers[i] is None
                    answers[i] = answer
            return answers

        return asyncio.run(work())

    def texts(self, engine, requests):
        return [answer.text for answer in self.generate(engine, requests)]

    @pytest.fixture
    def requests(self, experts, prompts):
        mixed = [Request(expert, ask(text)) for text in prompts for expert in experts]
        random.Random(0).shuffle(mixed)
        return mixed

    def test_every_request_gets_its_own_answer_in_order(self, engine, requests):
        together = self.generate(engine, requests)
        alone = [self.generate(engine, [request])[0] for request in requests]
        assert [a.text for a in together] == [a.text for a in alone]
        assert [a.usage for a in together] == [a.usage for a in alone]
        assert [a.finish for a in together] == [a.finish for a in alone]
        assert len({a.text for a in together}) > len(requests) / 2

    def test_nothing_is_asked_of_no_requests(self, engine):
        assert list(asyncio.run(engine.generate([]))) == []
        assert list(asyncio.run(engine.plan([]))) in ([], [range(0)])

    def test_answers_are_responses_with_tokens_counted(self, engine, requests):
        for answer in self.generate(engine, requests):
            assert isinstance(answer, Response)
            assert isinstance(answer.usage, Usage)
            assert answer.usage.prompt_tokens > 0
            assert answer.usage.completion_tokens >= 0
            assert answer.seconds >= 0

    def test_the_same_request_twice(self, engine, requests):
        first, second = self.texts(engine, [requests[0], requests[0]])
        assert first == second == self.texts(engine, [requests[0]])[0]

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "\n",
            "naïve ☃ 日本語 👩‍👩‍👧 \u202e right",
            "\ud800 alone",
            "nul \0 nul",
            "%s {0} {x}",
        ],
    )
    def test_odd_texts_are_answered(self, engine, experts, requests, text):
        odd = Request(experts[0], ask(text))
        answers = self.generate(engine, [*requests, odd])
        assert all(isinstance(answer, Response) for answer in answers)
        assert answers[-1].text == self.texts(engine, [odd])[0]

    def test_several_messages(self, engine, experts):
        conversation = (Message("system", "w1"), Message("user", "w2"), Message("assistant", "w3"))
        [answer] = self.generate(engine, [Request(experts[0], (*conversation, *ask("w4")))])
        assert isinstance(answer, Response)
        assert answer.usage.prompt_tokens >= 4

    def test_no_more_tokens_than_allowed_each_by_its_own_limit(self, engine, experts, prompts):
        limits = [1, 2, 3, 12]
        requests = [
            Request(self.sampled(experts[0], max_tokens=limit), ask(text))
            for text in prompts
            for limit in limits
        ]
        answers = self.generate(engine, requests)
        for request, answer in zip(requests, answers, strict=True):
            limit = request.expert.sampling.max_tokens
            assert answer.usage.completion_tokens <= limit
            if answer.finish == "length":
                assert answer.usage.completion_tokens == limit
        shorter = [
            a for a, r in zip(answers, requests, strict=True) if r.expert.sampling.max_tokens == 1
        ]
        assert {answer.finish for answer in shorter} == {"length"}

    def test_a_stop_string_ends_its_own_request_only(self, engine, experts, prompts):
        plain = [Request(experts[0], ask(text)) for text in prompts]
        unstopped = self.generate(engine, plain)
        texts = [answer.text for answer in unstopped]
        long = next(text for text in texts if len(text.split()) > 3)
        stop = long.split()[2]
        stopping = self.sampled(experts[0], stop=("never said", stop))
        both = [request for r in plain for request in (r, Request(stopping, r.messages))]
        answers = self.generate(engine, both)
        assert [a.text for a in answers[::2]] == texts
        for whole, answer in zip(unstopped, answers[1::2], strict=True):
            text = whole.text
            assert answer.text.strip() == text.partition(stop)[0].strip()
            if stop in text:
                assert answer.finish == "stop"
                assert answer.usage.completion_tokens <= whole.usage.completion_tokens

    def test_one_that_fails_takes_no_other_along(self, engine, requests, hopeless):
        request, told = hopeless
        expected = self.texts(engine, requests)
        answers = self.generate(engine, [*requests[:2], request, *requests[2:]])
        failed = answers.pop(2)
        assert isinstance(failed, EngineError)
        for part in told:
            assert part in str(failed)
        assert [answer.text for answer in answers] == expected

    def test_an_engine_that_cannot_answer_says_so(self, engine, broken):
        with pytest.raises(EngineError) as error:
            self.generate(engine, [Request(broken, ask("w1"))])
        assert "\n" not in str(error.value)

    def test_plans_name_each_request_once(self, engine, experts):
        rng = random.Random(1)
        for n in (1, 2, 7, 300):
            requests = [
                Request(rng.choice(experts), ask(" ".join(["w1"] * rng.randint(0, 90))))
                for _ in range(n)
            ]
            batches = asyncio.run(engine.plan(requests))
            assert sorted(i for batch in batches for i in batch) == list(range(n))
            assert all(batches)

    def test_it_may_be_unloaded_closed_and_used_again(self, engine, requests):
        first = self.texts(engine, requests)
        asyncio.run(engine.unload(requests[0].expert.base))
        asyncio.run(engine.unload(requests[0].expert.base))
        assert self.texts(engine, requests) == first
        asyncio.run(engine.close())
        assert self.texts(engine, requests) == first

    def test_drawing(self, engine, experts, prompts):
        if not self.samples:
            pytest.skip("this engine draws nothing")
        warm = self.sampled(experts[0], temperature=1.5)
        draws = [Request(warm, ask(prompts[0]), draw) for draw in range(8)]
        texts = self.texts(engine, draws)
        assert len(set(texts)) > 4
        assert self.texts(engine, draws) == texts
        reseeded = self.sampled(warm, seed=7)
        assert self.texts(engine, [r._replace(expert=reseeded) for r in draws]) != texts

    def test_a_draw_does_not_depend_on_its_neighbours(self, engine, experts, prompts):
        if not self.samples:
            pytest.skip("this engine draws nothing")
        requests = [
            Request(self.sampled(expert, temperature=t, top_p=p), ask(text), draw)
            for expert in experts
            for text in prompts[:3]
            for t, p in [(0, 1), (1, 1), (1, 0.5)]
            for draw in range(2)
        ]
        together = self.texts(engine, requests)
        assert [self.texts(engine, [request])[0] for request in requests] == together

    def test_a_temperature_close_to_0_and_a_tiny_top_p_are_greedy(self, engine, experts, prompts):
        if not self.samples:
            pytest.skip("this engine draws nothing")
        greedy = self.texts(engine, [Request(experts[0], ask(text)) for text in prompts])
        for changes in ({"temperature": 1e-6}, {"temperature": 1.0, "top_p": 1e-9}):
            nearly = self.sampled(experts[0], **changes)
            assert self.texts(engine, [Request(nearly, ask(text)) for text in prompts]) == greedy


def greedy(**changes):
    return Sampling(max_tokens=12, **changes)
