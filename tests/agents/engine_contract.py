"""What every engine must do (`swarm.agents.engines.base`), as tests: subclass `EngineContract`."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import swarm
from swarm.agents.expert import Sampling
from swarm.agents.messages import Message, Request, Response, Usage
from swarm.errors import EngineError


def ask(*texts):
    return tuple(Message("user", text) for text in texts)


class EngineContract:
    """Give the fixtures; all experts are of one base.

    All words that are asked are from `prompts`, but for those that test odd texts: an engine whose
    models know few words is tested as any other.
    """

    samples = True
    """Whether answers are drawn where the temperature is above 0."""
    waits = True
    """Whether `generate` ever waits for something, so that it can be cancelled."""

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

    @pytest.fixture
    def sabotage(self):
        """A context manager, given the engine: inside, it fails in the middle of a batch of
        `experts`, with or without some answers; afterwards it works, or can be brought to."""
        raise NotImplementedError

    @pytest.fixture
    def parrot(self):
        """An expert that says again what it is asked, in 40 tokens at most; None: there is none."""
        return

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

    def outcomes(self, engine, requests):
        """As a user's program does: through a scheduler, on a loop of its own; errors included."""
        runtime = swarm.Runtime({requests[0].expert.engine: engine})
        return asyncio.run(self.scheduled(runtime, requests))

    @staticmethod
    async def scheduled(runtime, requests):
        scheduler = runtime.scheduler()
        columns = await asyncio.gather(
            *(scheduler.ask(r.expert, [r.messages], draw=r.draw) for r in requests)
        )
        return [column.outcomes[0] for column in columns]

    def stream(self, engine, request, *, stop_after=None):
        """The pieces of an answer, and the whole (None if not waited for)."""

        async def work():
            await engine.load(request.expert.base, [request.expert])
            pieces, whole, steps = [], None, engine.stream(request)
            async for step in steps:
                assert whole is None, "something comes after the whole answer"
                if isinstance(step, Response):
                    whole = step
                else:
                    pieces.append(step)
                if len(pieces) == stop_after:
                    await steps.aclose()
                    break
            return pieces, whole

        return asyncio.run(work())

    @pytest.fixture
    def words(self, prompts):
        """Different ones that models may know."""
        return list(dict.fromkeys(" ".join(prompts).split()))

    @pytest.fixture
    def crowd(self, experts, words):
        """Many requests, no two alike."""
        n = len(words)
        pairs = [f"{words[i]} {words[j]}" for i in range(n) for j in range(n)]
        chosen = random.Random(2).sample(pairs, min(24, len(pairs)))
        return [Request(expert, ask(pair)) for pair in chosen for expert in experts]

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

    def test_many_requests_keep_their_order(self, engine, crowd):
        together = self.texts(engine, crowd)
        backwards = self.texts(engine, crowd[::-1])
        assert backwards == together[::-1]
        for i in random.Random(0).sample(range(len(crowd)), 6):
            assert self.texts(engine, [crowd[i]]) == [together[i]]

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

    def test_more_words_are_more_tokens(self, engine, experts, words):
        lengths = [1, 2, 5, 20]
        prompts = [" ".join((words * 20)[:n]) for n in lengths]
        answers = self.generate(engine, [Request(experts[0], ask(text)) for text in prompts])
        read = [answer.usage.prompt_tokens for answer in answers]
        for n, count in zip(lengths, read, strict=True):
            assert count - read[0] >= n - 1
        for answer in answers:
            assert (answer.usage.completion_tokens > 0) >= bool(answer.text)

    def test_a_very_long_prompt_is_refused_or_read_whole(self, engine, experts, words, requests):
        [one] = self.generate(engine, [Request(experts[0], ask(words[0]))])
        lengths = [30, 300, 3_000, 30_000]
        long = [Request(experts[0], ask(" ".join([words[0]] * n))) for n in lengths]
        expected = self.texts(engine, requests)
        answers = self.generate(engine, [*long, *requests])
        assert [answer.text for answer in answers[len(long) :]] == expected
        for n, answer in zip(lengths, answers, strict=False):
            if isinstance(answer, Response):
                assert answer.usage.prompt_tokens >= one.usage.prompt_tokens + n - 1
            else:
                assert isinstance(answer, EngineError)
                assert "\n" not in str(answer)
                assert any(character.isdigit() for character in str(answer)), "how long was it?"
        refused = [isinstance(answer, EngineError) for answer in answers[: len(long)]]
        assert refused == sorted(refused)

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

    def test_several_messages(self, engine, experts, words):
        roles = ("system", "user", "assistant")
        conversation = tuple(map(Message, roles, words))
        [answer] = self.generate(engine, [Request(experts[0], (*conversation, *ask(words[3])))])
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

    def test_the_first_of_several_stop_strings_ends_it(self, engine, experts, prompts):
        plain = [Request(experts[0], ask(text)) for text in prompts]
        answers = zip(plain, self.texts(engine, plain), strict=True)
        request, text = next((r, text) for r, text in answers if len(text.split()) > 4)
        first, second, third = text.split()[:3]
        pair = f"{second} {third}"
        end = text.find(pair) + len(pair)
        later = next((word for word in text.split()[3:] if text.find(word) >= end), "never said")
        for stops in ((pair,), (later, pair), (first,)):
            stopping = self.sampled(experts[0], stop=stops)
            [answer] = self.generate(engine, [Request(stopping, request.messages)])
            until = min(text.find(stop) for stop in stops if stop in text)
            assert answer.text.strip() == text[:until].strip()
            assert answer.finish == "stop"

    def test_one_that_fails_takes_no_other_along(self, engine, requests, hopeless):
        request, told = hopeless
        expected = self.texts(engine, requests)
        answers = self.generate(engine, [*requests[:2], request, *requests[2:]])
        failed = answers.pop(2)
        assert isinstance(failed, EngineError)
        for part in told:
            assert part in str(failed)
        assert [answer.text for answer in answers] == expected

    def test_all_may_fail(self, engine, requests, hopeless):
        failing, _ = hopeless
        answers = self.generate(engine, [failing] * 3)
        assert len(answers) == 3
        assert all(isinstance(answer, EngineError) for answer in answers)
        assert isinstance(self.generate(engine, requests[:1])[0], Response)

    def test_an_engine_that_fails_in_the_middle(self, engine, requests, sabotage):
        expected = self.outcomes(engine, requests)
        with sabotage(engine):
            met = self.outcomes(engine, requests)
        assert len(met) == len(requests)
        failed = [outcome for outcome in met if isinstance(outcome, EngineError)]
        assert failed
        for error in failed:
            assert str(error).strip()
            assert "\n" not in str(error)
        for outcome, right in zip(met, expected, strict=True):
            if isinstance(outcome, Response):
                assert outcome.text == right.text
        after = self.outcomes(engine, requests)
        assert [outcome.text for outcome in after] == [outcome.text for outcome in expected]

    @pytest.mark.parametrize("seconds", [0, 0.001, 0.01, 0.1])
    def test_what_is_cancelled_leaves_it_usable(self, engine, crowd, seconds):
        expected = self.texts(engine, crowd)

        async def work():
            await engine.load(crowd[0].expert.base, [request.expert for request in crowd])
            task = asyncio.create_task(engine.generate(crowd))
            await asyncio.sleep(seconds)
            task.cancel()
            await asyncio.wait([task])
            return task

        done = asyncio.run(work())
        if not done.cancelled():  # it was faster
            assert [answer.text for answer in done.result()] == expected
        assert done.cancelled() or seconds > 0 or not self.waits
        assert self.texts(engine, crowd) == expected

    def test_who_cancels_takes_nothing_from_others(self, engine, crowd):
        expected = self.texts(engine, crowd)
        runtime = swarm.Runtime({crowd[0].expert.engine: engine})

        async def work():
            scheduler = runtime.scheduler()
            asked = [
                asyncio.create_task(scheduler.ask(r.expert, [r.messages], draw=r.draw))
                for r in crowd
            ]
            await asyncio.sleep(0.005)
            for task in asked[::3]:
                task.cancel()
            await asyncio.wait(asked)
            return asked

        for task, text in zip(asyncio.run(work()), expected, strict=True):
            if not task.cancelled():
                assert task.result().outcomes[0].text == text
        assert self.texts(engine, crowd) == expected

    def test_users_get_their_own_answers(self, engine, experts, crowd):
        """Several at the same time, each on a thread and an event loop of its own."""
        warm = [self.sampled(expert, temperature=1.0) for expert in experts]
        users = [
            [*crowd[user::4], *(Request(e, crowd[user].messages, user) for e in warm)]
            for user in range(4)
        ]
        alone = [[self.generate(engine, [request])[0] for request in mine] for mine in users]
        runtime = swarm.Runtime({experts[0].engine: engine})

        def ask_all(mine):
            return asyncio.run(self.scheduled(runtime, mine))

        with ThreadPoolExecutor(len(users)) as threads:
            together = list(threads.map(ask_all, users))
        for expected, answers in zip(alone, together, strict=True):
            assert [a.text for a in answers] == [a.text for a in expected]
            assert [a.usage for a in answers] == [a.usage for a in expected]

    def test_no_ones_words_are_in_anothers_answer(self, engine, parrot):
        if parrot is None:
            pytest.skip("no expert of this engine repeats what it is asked")
        secrets = [f"secret{user}of{i}" for user in range(4) for i in range(8)]
        runtime = swarm.Runtime({parrot.engine: engine})

        def ask_all(user):
            mine = [Request(parrot, ask(f"mine is {secret}")) for secret in secrets[user::4]]
            return asyncio.run(self.scheduled(runtime, mine))

        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(ask_all, range(4)))
        for user, told in enumerate(answers):
            for secret, answer in zip(secrets[user::4], told, strict=True):
                assert [each for each in secrets if each in answer.text.split()] == [secret]

    def test_an_answer_in_pieces_is_the_answer(self, engine, requests):
        for request in requests:
            [whole] = self.generate(engine, [request])
            pieces, answer = self.stream(engine, request)
            assert "".join(pieces) == answer.text == whole.text
            assert all(pieces)
            assert (answer.usage, answer.finish) == (whole.usage, whole.finish)

    def test_an_answer_in_pieces_ends_at_a_stop_string(self, engine, experts, prompts):
        plain = [Request(experts[0], ask(text)) for text in prompts]
        text = next(text for text in self.texts(engine, plain) if len(text.split()) > 3)
        stopping = self.sampled(experts[0], stop=(" ".join(text.split()[1:3]),))
        for request in plain:
            stopped = request._replace(expert=stopping)
            pieces, answer = self.stream(engine, stopped)
            assert "".join(pieces) == answer.text == self.texts(engine, [stopped])[0]

    def test_a_request_that_fails_has_no_pieces(self, engine, hopeless):
        request, told = hopeless
        with pytest.raises(EngineError) as error:
            self.stream(engine, request)
        for part in told:
            assert part in str(error.value)

    def test_who_stops_reading_pieces_leaves_it_usable(self, engine, requests):
        expected = self.texts(engine, requests)
        for request in requests:
            pieces, _ = self.stream(engine, request, stop_after=1)
            assert len(pieces) <= 1
        assert self.texts(engine, requests) == expected

    def test_an_engine_that_cannot_answer_says_so(self, engine, broken, words):
        with pytest.raises(EngineError) as error:
            self.generate(engine, [Request(broken, ask(words[0]))])
        assert "\n" not in str(error.value)

    def test_plans_name_each_request_once(self, engine, experts, words):
        rng = random.Random(1)
        for n in (1, 2, 7, 300):
            requests = [
                Request(rng.choice(experts), ask(" ".join([words[0]] * rng.randint(0, 90))))
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

    def test_any_seed_is_taken(self, engine, experts, prompts):
        if not self.samples:
            pytest.skip("this engine draws nothing")
        seeds = [0, 1, -5, 2**31, 10**12, 2**64 + 1]
        warm = [self.sampled(experts[0], temperature=1.5, seed=seed) for seed in seeds]
        requests = [Request(expert, ask(prompts[0])) for expert in warm]
        texts = self.texts(engine, requests)
        assert self.texts(engine, requests[::-1]) == texts[::-1]
        assert len(set(texts)) > len(seeds) / 2

    def test_a_seed_changes_nothing_where_nothing_is_drawn(self, engine, experts, prompts):
        reseeded = self.sampled(experts[0], seed=7)
        texts = self.texts(engine, [Request(experts[0], ask(text)) for text in prompts])
        assert self.texts(engine, [Request(reseeded, ask(text)) for text in prompts]) == texts

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


@contextmanager
def after(calls, owner, name, error):
    """Inside, `owner.name` raises `error` from its so-many-th call on."""
    right, made = getattr(owner, name), 0

    def failing(*args, **kwargs):
        nonlocal made
        made += 1
        if made > calls:
            raise error
        return right(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, failing)
        yield
