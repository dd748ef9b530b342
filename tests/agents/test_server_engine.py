"""The server engine keeps the contract, and gets the most out of a server that is slow or fails."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import contextmanager
from email.utils import formatdate

import pytest
from engine_contract import EngineContract, ask, greedy
from http_server import Fault, Server, complete, refusal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import swarm
from swarm.agents.engines.http_loop import http_loop
from swarm.agents.engines.server import ServerEngine
from swarm.agents.expert import Expert, Pool
from swarm.agents.messages import Request, Response, Usage
from swarm.app.doctor import require_engines
from swarm.errors import EngineError, PoolError, RequestError
from swarm.graphs.topologies import single
from swarm.optimizers.baselines.best_single import BestSingle

BACKOFF = 0.01
# Of LiteLLM, where a deadline comes before it has begun to send.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine '.*' was never awaited:RuntimeWarning")
KEY = "sk-very-secret-0123456789"
ASKED_BY = {"client": "direct"}
"""The client of `expert_at`."""


@pytest.fixture(params=["direct", "litellm"])
def client(request, monkeypatch):
    """Everything that a server can do is done to both."""
    if request.param == "litellm":
        request.getfixturevalue("warm_litellm")
    monkeypatch.setitem(ASKED_BY, "client", request.param)
    return request.param


@pytest.fixture
def server(client):
    server = Server()
    yield server
    server.close()


def expert_at(url, name="e", sampling=None, **options):
    return Expert(
        name=name,
        engine="server",
        model="openai/tiny",
        sampling=sampling or greedy(),
        options={"url": url, "deadline": 5, **ASKED_BY, **options},
    )


def generate(requests, engine=None):
    return asyncio.run((engine or ServerEngine(backoff=BACKOFF)).generate(requests))


def many(expert, n=20):
    return [Request(expert, ask(f"question {i}")) for i in range(n)]


def text_of(body):
    """What the obedient server answers."""
    return complete("plain", body)[1]["choices"][0]["message"]["content"]


def right(server, requests):
    """What `requests`, which were sent, must have been answered."""
    bodies = {body["messages"][-1]["content"]: body for body in server.asked}
    return [text_of(bodies[request.messages[-1].content]) for request in requests]


class TestServer(EngineContract):
    @pytest.fixture
    def engine(self):
        return ServerEngine(backoff=BACKOFF)

    @pytest.fixture
    def experts(self, server):
        return [expert_at(server.at(model), model) for model in ("plain", "backwards")]

    @pytest.fixture
    def prompts(self):
        return ["w1", "w2 w3", "w4 " * 9, "w5 w6 w7", "w8 " * 40, "w9 w10 w11 w12"]

    @pytest.fixture
    def hopeless(self, experts):
        told = ["`backwards`", "400", "a prompt of 121 tokens is more than the 100"]
        return Request(experts[1], ask("w1 " * 120)), told

    @pytest.fixture
    def broken(self):
        return expert_at("http://127.0.0.1:1/v1", deadline=0.3)

    @pytest.fixture
    def sabotage(self, server):
        @contextmanager
        def down(engine):
            server.faults += [Fault()] * 4
            server.always = Fault(close=True)
            yield
            server.always = Fault()

        return down

    @pytest.fixture
    def parrot(self, server):
        return expert_at(server.at("parrot"))

    def test_an_engine_that_cannot_answer_says_so(self, engine, broken):
        # There is no engine that fails as a whole: each request fails for itself.
        [answer] = self.generate(engine, [Request(broken, ask("w1"))])
        assert isinstance(answer, EngineError)
        assert "\n" not in str(answer)


class TestWhatIsSent:
    def test_sampling_key_and_name(self, server, monkeypatch):
        monkeypatch.setenv("ZOO_KEY", KEY)
        sampling = swarm.Sampling(temperature=0.5, top_p=0.9, max_tokens=7, stop=("a", "b"), seed=3)
        generate([Request(expert_at(server.url, sampling=sampling, key="ZOO_KEY"), ask("x"))])
        [body] = server.asked
        assert body["path"] == "/plain/v1/chat/completions"
        assert body["authorization"] == f"Bearer {KEY}"
        assert body["model"] == "tiny"
        assert body["messages"] == [{"role": "user", "content": "x"}]
        assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.5, 0.9, 7)
        assert body["stop"] == ["a", "b"]
        assert 0 <= body["seed"] < 2**31
        assert "n" not in body

    def test_draws_and_seeds_differ(self, server):
        requests = [
            Request(expert_at(server.url, sampling=greedy(seed=seed)), ask("x"), draw)
            for seed in (0, 1, -5, 10**12)
            for draw in range(4)
        ]
        generate(requests)
        assert len({body["seed"] for body in server.asked}) == len(requests)

    def test_another_hosts_key_is_not_sent_to_an_address_that_was_given_none(
        self, server, monkeypatch
    ):
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        generate([Request(expert_at(server.url), ask("x"))])
        assert KEY not in server.asked[0]["authorization"]


class TestAttempts:
    @pytest.mark.parametrize(
        "fault",
        [
            refusal(500, "oh"),
            refusal(503, "oh", Retry_After=0.02),
            refusal(529, "oh"),
            refusal(408, "oh"),
            refusal(429, "oh"),
            refusal(429, "oh", Retry_After=0.02),
            refusal(429, "oh", Retry_After="soon"),
            refusal(429, "oh", Retry_After=formatdate(0, usegmt=True)),
            Fault(close=True),
        ],
        ids=lambda fault: f"{fault.status} {dict(fault.headers)}",
    )
    def test_what_may_pass_is_asked_again(self, server, fault):
        server.faults += [fault, fault]
        requests = many(expert_at(server.url), 6)
        answers = generate(requests)
        assert [answer.text for answer in answers] == right(server, requests)
        assert len(server.asked) == 6 + 2

    def test_an_answer_that_takes_too_long_is_not_waited_for(self, server):
        server.faults += [Fault(seconds=2), Fault(seconds=2)]
        requests = many(expert_at(server.url, timeout=0.3), 6)
        answers = generate(requests)
        assert [answer.text for answer in answers] == right(server, requests)
        assert len(server.asked) >= 6 + 2

    def test_nothing_that_was_answered_is_asked_twice(self, server):
        server.faults += [
            refusal(500), Fault(close=True), refusal(429), Fault(), refusal(503), Fault(),
            Fault(close=True), refusal(500), Fault(), refusal(429), refusal(429),
        ]  # fmt: skip
        requests = many(expert_at(server.url), 20)
        assert [answer.text for answer in generate(requests)] == right(server, requests)
        assert set(server.answered.values()) == {1}
        assert len(server.answered) == 20
        assert len(server.asked) == 20 + 8

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
    def test_a_client_error_stays(self, server, status):
        server.faults.append(refusal(status, "no, not this"))
        [answer] = generate([Request(expert_at(server.url), ask("x"))])
        assert isinstance(answer, RequestError)
        assert "`e`" in str(answer)
        assert f"{status}: no, not this" in str(answer)
        assert len(server.asked) == 1

    def test_all_is_given_up_at_the_deadline(self, server):
        server.always = refusal(500, "out of order")
        begun = time.monotonic()
        [answer] = generate([Request(expert_at(server.url, deadline=0.6), ask("x"))])
        assert time.monotonic() - begun < 2
        assert isinstance(answer, RequestError)
        assert "500: out of order; given up after" in str(answer)
        assert "`deadline` 0.6 s" in str(answer)
        assert len(server.asked) > 1

    def test_the_deadline_counts_from_the_first_attempt(self, server):
        server.always = refusal(429, "busy", Retry_After=0.12)
        begun = time.monotonic()
        generate([Request(expert_at(server.url, deadline=0.3), ask("x"))])
        assert len(server.asked) <= 3
        assert time.monotonic() - begun < 2

    def test_what_waits_for_its_turn_has_its_own_deadline(self, server):
        server.always = Fault(seconds=0.2)
        requests = many(expert_at(server.url, concurrency=1, deadline=2.0), 12)
        assert all(isinstance(answer, Response) for answer in generate(requests))

    def test_a_wait_beyond_the_deadline_is_not_waited_for(self, server):
        server.always = refusal(429, "come tomorrow", Retry_After=86400)
        begun = time.monotonic()
        [answer] = generate([Request(expert_at(server.url), ask("x"))])
        assert time.monotonic() - begun < 2
        assert "429: come tomorrow; given up after 1 attempt" in str(answer)

    def test_a_server_that_hangs(self, server):
        server.always = Fault(seconds=1)
        expert = expert_at(server.url, timeout=0.05, deadline=0.3)
        [answer] = generate([Request(expert, ask("x"))])
        assert "no answer in `timeout` 0.05 s; given up after" in str(answer)

    def test_nobody_there(self, server):
        url = server.url
        server.close()
        [answer] = generate([Request(expert_at(url, deadline=0.3), ask("x"))])
        assert isinstance(answer, RequestError)
        assert "connection lost or refused" in str(answer)
        assert url in str(answer)
        assert "\n" not in str(answer)


def changed(**changes):
    def change(answer):
        return {**answer, **changes}

    return Fault(body=change)


def said(content, finish="stop", **more):
    message = {"role": "assistant", "content": content}
    return [{"index": 0, "message": message, "finish_reason": finish, **more}]


class TestOddAnswers:
    @pytest.mark.parametrize(
        ("fault", "told"),
        [
            (Fault(body=b'{"choices": ['), ""),
            (Fault(body=b"<html>a proxy</html>"), ""),
            (Fault(body=b""), ""),
            (Fault(body=[1]), ""),
            (Fault(body={}), ""),
            (changed(choices=[]), "0 choices"),
            (changed(choices=said("a") + said("b")), "2 choices"),
            (changed(choices=None), ""),
            (changed(choices=said(None)), "an empty text"),
            (changed(choices=said("")), "an empty text"),
            (changed(choices=said("", "length")), "raise it"),
            (changed(choices=[{"index": 0}]), ""),
        ],
    )
    def test_they_fail_their_own_request_and_are_not_asked_again(self, server, fault, told):
        server.faults += [Fault(), fault]
        requests = many(expert_at(server.url, concurrency=1), 3)
        first, second, third = generate(requests)
        assert isinstance(second, RequestError)
        assert "malformed answer: " in str(second)
        assert told in str(second)
        assert "\n" not in str(second)
        expected = right(server, requests)
        assert [first.text, third.text] == [expected[0], expected[2]]
        assert len(server.asked) == 3

    def test_a_text_that_is_empty_for_a_stop_string_is_an_answer(self, server):
        server.faults.append(changed(choices=said("")))
        [answer] = generate(
            [Request(expert_at(server.url, sampling=greedy(stop=("x",))), ask("q"))]
        )
        assert (answer.text, answer.finish) == ("", "stop")

    def test_a_stop_string_that_the_server_leaves_is_cut(self, server):
        server.faults.append(changed(choices=said("one STOP two", "length")))
        [answer] = generate(
            [Request(expert_at(server.url, sampling=greedy(stop=("STOP",))), ask("q"))]
        )
        assert (answer.text, answer.finish) == ("one ", "stop")

    @pytest.mark.parametrize("usage", [None, {}])
    def test_tokens_that_the_server_does_not_count_are_estimated(self, server, usage):
        server.faults.append(changed(choices=said("one two three"), usage=usage))
        [answer] = generate([Request(expert_at(server.url), ask("hello there"))])
        assert answer.usage.prompt_tokens > 0
        assert answer.usage.completion_tokens == 3

    def test_usage_as_the_server_says(self, server):
        counted = {"prompt_tokens": 11, "completion_tokens": 22, "total_tokens": 33}
        server.faults.append(changed(usage=counted))
        [answer] = generate([Request(expert_at(server.url), ask("x"))])
        assert answer.usage == Usage(11, 22)


class TestWhatAServerDoesNotKnow:
    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("seed", "Unknown parameter: 'seed'."),
            ("seed", "Unsupported parameter: `seed` is not supported with this model"),
            ("seed", "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'input': 1}]"),
            ("stop", "this model does not support stop"),
            ("top_p", "top_p is not permitted"),
        ],
    )
    def test_it_is_asked_without_and_the_engine_remembers(self, server, name, message):
        engine = ServerEngine(backoff=BACKOFF)
        expert = expert_at(server.url, sampling=greedy(stop=("never",)), concurrency=1)
        server.faults.append(refusal(400, message))
        first, *others = many(expert, 4)
        answers = [*generate([first], engine), *generate(others, engine)]
        assert all(isinstance(answer, Response) for answer in answers)
        assert len(server.asked) == 5
        assert name in server.asked[0]
        assert not any(name in body for body in server.asked[1:])

    @pytest.mark.parametrize(
        "message", ["the seed of doubt", "temperature is not supported", "max_tokens: not allowed"]
    )
    def test_other_refusals_stay(self, server, message):
        server.faults.append(refusal(400, message))
        [answer] = generate([Request(expert_at(server.url), ask("x"))])
        assert isinstance(answer, RequestError)
        assert len(server.asked) == 1

    def test_a_top_p_that_means_something_is_never_left_out(self, server):
        server.faults.append(refusal(400, "top_p is not supported"))
        expert = expert_at(server.url, sampling=greedy(top_p=0.5))
        [answer] = generate([Request(expert, ask("x"))])
        assert "400: top_p is not supported" in str(answer)
        assert len(server.asked) == 1


@pytest.mark.parametrize("how", ["knows", "refuses the seed", "refuses the seed, greedy"])
def test_a_run_says_what_was_really_sent(server, tmp_path, how):
    """Without a seed, what was sampled can only be had from the record; greedy needs none."""
    if "refuses" in how:
        server.faults.append(refusal(400, "Unknown parameter: 'seed'."))
    sampling = greedy() if "greedy" in how else swarm.Sampling(temperature=1.0)
    pool = Pool([expert_at(server.url, sampling=sampling, concurrency=1)])
    questions = [{"question": f"q{i}", "answer": "w1"} for i in range(3)]
    other = [{"question": f"p{i}", "answer": "w1"} for i in range(3)]
    task = swarm.Task.from_records("words", "exact", test=questions, dev=other)
    expected = "replay-only" if how == "refuses the seed" else "seeded"
    path = str(tmp_path / "swarm.db")

    def runtime():
        return swarm.Runtime({"server": ServerEngine(backoff=BACKOFF)})

    graph = single("e")
    [evaluation] = swarm.evaluate([graph], task, pool, store=path, runtime=runtime())
    assert evaluation.summary().determinism == expected
    assert any("seed" not in body for body in server.asked) == ("refuses" in how)
    with swarm.Store.open(path) as store:
        assert store.run(1).summary["determinism"] == expected
        assert any(view.batch.seedless for view in store.batches(1)) == (expected == "replay-only")
    [again] = swarm.evaluate([graph], task, pool, store=path, runtime=runtime())
    assert again.summary().determinism == "bitwise"
    # A job says it of the batches that were recorded, whichever session asked them.
    if "refuses" in how:
        server.faults.append(refusal(400, "Unknown parameter: 'seed'."))
    path = str(tmp_path / "job.db")
    BestSingle().fit(task, pool, store=path, runtime=runtime())
    with swarm.Store.open(path) as store:
        assert store.run(1).summary["determinism"] == expected


def test_a_key_does_not_follow_a_server_that_has_moved(monkeypatch):
    monkeypatch.setenv("ZOO_KEY", KEY)
    old, new = Server(), Server()
    old.always = Fault(307, {}, {"Location": f"{new.url}/chat/completions"})
    [answer] = generate([Request(expert_at(old.url, key="ZOO_KEY", client="direct"), ask("x"))])
    assert "307: moved to" in str(answer)
    assert new.asked == []
    old.close()
    new.close()


def test_a_hosted_model_costs_what_litellm_says(server, client, monkeypatch, tmp_path):
    """The evaluation's summary, and the store's, are the sum of LiteLLM's `response_cost`."""
    if client == "direct":
        pytest.skip("hosted models are LiteLLM's")
    import litellm

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    costs, right = [], litellm.acompletion

    async def watched(**settings):
        reply = await right(**settings)
        costs.append(reply._hidden_params["response_cost"])
        return reply

    monkeypatch.setattr(litellm, "acompletion", watched)
    pool = Pool([Expert(name="e", engine="server", model="openai/gpt-4o", sampling=greedy())])
    questions = [{"question": f"q{i}", "answer": f"w{i}"} for i in range(6)]
    task = swarm.Task.from_records("words", "exact", test=questions)
    runtime = swarm.Runtime({"server": ServerEngine(backoff=BACKOFF)})
    system = swarm.System(swarm.graphs.chain(["e", "e"]), pool, runtime=runtime)
    evaluation = system.evaluate(task, store=str(tmp_path / "x.db"))
    assert len(costs) == len(server.asked) == 12
    assert {body["authorization"] for body in server.asked} == {f"Bearer {KEY}"}
    assert min(costs) > 0
    assert evaluation.summary().cost == pytest.approx(sum(costs))
    with swarm.Store.open(tmp_path / "x.db") as store:
        assert store.run(evaluation.run).summary["cost"] == pytest.approx(sum(costs))


class TestLimits:
    def test_no_more_at_once_than_allowed(self, server):
        server.always = Fault(seconds=0.01)
        generate(many(expert_at(server.url, concurrency=3), 15))
        assert server.most_at_once == 3
        server.most_at_once = 0
        generate(many(expert_at(server.url, concurrency=12), 30))
        assert 3 < server.most_at_once <= 12

    def test_experts_of_one_endpoint_share_its_limit(self, server):
        server.always = Fault(seconds=0.01)
        requests = [
            Request(expert_at(server.url, f"e{i}", concurrency=2), ask(f"q {i}")) for i in range(8)
        ]
        generate(requests)
        assert server.most_at_once == 2

    def test_no_more_a_minute_than_allowed(self, server):
        n, distance = 8, 0.02
        generate(many(expert_at(server.url, requests_per_minute=60 / distance), n))
        assert max(server.times) - min(server.times) > n / 2 * distance

    def test_after_429_fewer_are_sent_at_once(self, server):
        engine = ServerEngine(backoff=BACKOFF)
        expert = expert_at(server.url, concurrency=8)
        server.faults += [refusal(429)] * 8
        generate(many(expert, 8), engine)
        server.most_at_once, server.always = 0, Fault(seconds=0.02)
        generate(many(expert, 12), engine)
        assert server.most_at_once < 8

    def test_retry_after_holds_all_back(self, server):
        server.faults.append(refusal(429, Retry_After=0.1))
        generate(many(expert_at(server.url, concurrency=1), 3))
        first, *others = server.times
        assert len(others) == 3
        assert min(others) - first >= 0.09


PASSING = (refusal(500), refusal(429, Retry_After=0), Fault(close=True), refusal(408))
STAYING = (refusal(400), changed(choices=[]), Fault(body=b"{"))


@pytest.mark.usefixtures("client")
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(st.sampled_from((Fault(), *PASSING, *STAYING)), max_size=12),
    n=st.integers(1, 10),
    concurrency=st.integers(1, 6),
)
def test_whatever_fails_each_request_gets_its_own_answer_or_error(faults, n, concurrency):
    server = Server()
    server.faults += faults
    requests = many(expert_at(server.url, concurrency=concurrency), n)
    answers = generate(requests, ServerEngine(backoff=0.001))
    met = len(faults) - len(server.faults)
    server.close()
    assert len(answers) == n
    bodies = {body["messages"][-1]["content"]: body for body in server.asked}
    for request, answer in zip(requests, answers, strict=True):
        prompt = request.messages[-1].content
        if isinstance(answer, Response):
            assert answer.text == text_of(bodies[prompt])
            assert server.answered[prompt] == 1
        else:
            assert isinstance(answer, RequestError)
            assert server.answered[prompt] == 0
    failed = sum(isinstance(answer, RequestError) for answer in answers)
    assert failed == sum(fault in STAYING for fault in faults[:met])
    assert len(server.asked) == n + sum(fault in PASSING for fault in faults[:met])
    assert server.most_at_once <= concurrency


def test_cancellation_leaves_nothing_running(server):
    server.always = Fault(seconds=0.05)
    engine = ServerEngine(backoff=BACKOFF)
    expert = expert_at(server.url, concurrency=2)

    async def work():
        task = asyncio.create_task(engine.generate(many(expert, 10)))
        while not server.asked:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.1)
        assert len(server.asked) <= 4
        left = [task.get_coro().__qualname__ for task in asyncio.all_tasks(http_loop())]
        assert not [name for name in left if name.startswith("ServerEngine")]
        # Its places are free again.
        server.always = Fault()
        assert all(isinstance(a, Response) for a in await engine.generate(many(expert, 4)))

    asyncio.run(work())


def test_callers_on_several_threads_loops_get_their_own_answers(server):
    engine = ServerEngine(backoff=BACKOFF)
    requests = many(expert_at(server.url), 12)

    def mine(i):
        return [answer.text for answer in generate(requests[i::4], engine)]

    async def work():
        return await asyncio.gather(*(asyncio.to_thread(mine, i) for i in range(4)))

    answered = asyncio.run(work())
    expected = right(server, requests)
    assert answered == [expected[i::4] for i in range(4)]


class TestKeys:
    def test_a_key_that_is_not_set_ends_the_run_before_anything_is_asked(self, server, monkeypatch):
        monkeypatch.delenv("ZOO_KEY", raising=False)
        expert = expert_at(server.url, key="ZOO_KEY")
        pool = Pool([expert])
        with pytest.raises(PoolError, match="environment variable `ZOO_KEY`"):
            swarm.single("e", pool=pool).invoke("x")
        with pytest.raises(PoolError, match="environment variable `ZOO_KEY`"):
            require_engines([expert])
        assert server.asked == []

    def test_it_is_nowhere_but_in_the_request(self, server, monkeypatch, tmp_path, caplog, capfd):
        monkeypatch.setenv("ZOO_KEY", KEY)
        server.faults.append(refusal(401, f"Incorrect API key provided: {KEY}."))
        expert = expert_at(server.url, key="ZOO_KEY")
        [answer] = generate([Request(expert, ask("x"))])
        assert "401: Incorrect API key provided: $ZOO_KEY" in str(answer)
        assert "see what `ZOO_KEY` holds" in str(answer)
        assert len(server.asked) == 1
        assert server.asked[0]["authorization"] == f"Bearer {KEY}"
        for text in (repr(answer), repr(expert), expert.model_dump_json(), caplog.text):
            assert KEY not in text
        assert KEY not in "".join(capfd.readouterr())


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_litellm_is_not_imported_before_something_is_asked():
    code = (
        "import sys, swarm\n"
        "from swarm.agents.engines import create_engine\n"
        "swarm.Pool([swarm.Expert(name='e', engine='server', model='gpt-4o')])\n"
        "create_engine('server')\n"
        "assert not {'litellm', 'httpx', 'aiohttp'} & set(sys.modules)\n"
        "print('well')"
    )
    assert python(code) == ("well\n", "")


def test_nothing_but_the_endpoint_is_asked_and_nothing_is_said(server, client, tmp_path):
    (tmp_path / ".env").write_text("FROM_DOTENV=1")
    code = f"""
import asyncio, os, socket, sys, swarm
os.chdir({str(tmp_path)!r})
from swarm.agents.engines import create_engine
from swarm.agents.messages import Message, Request

def reached(event, args):
    if event == "socket.getaddrinfo" and args[0] not in ("127.0.0.1", "localhost"):
        print("looked for", args[0])
    if event == "socket.connect" and args[1][0] != "127.0.0.1":
        print("reached", args[1])

sys.addaudithook(reached)
expert = swarm.Expert(
    name="e",
    engine="server",
    model="openai/x",
    options=dict(url={server.url!r}, deadline=0.2, client={client!r}),
)
requests = [Request(expert, (Message("user", f"q{{i}}"),)) for i in range(8)]
answers = asyncio.run(create_engine("server").generate(requests))
print([type(answer).__name__ for answer in answers], "FROM_DOTENV" in os.environ)
"""
    server.faults += [Fault(), Fault(close=True), refusal(401), changed(choices=said("x", "odd"))]
    out, err = python(code)
    assert out.startswith("['Re")
    assert out.endswith(" False\n")
    assert "reached" not in out
    assert "looked for" not in out
    assert err == ""


def test_a_role_step_job_over_a_server(server, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_KEY", KEY)
    server.faults += [refusal(500), Fault(close=True), refusal(429, Retry_After=0.01)]
    pool = Pool(
        expert_at(server.at(name), name, key="ZOO_KEY") for name in ("plain", "backwards", "third")
    )
    questions = [{"question": f"q{i}", "answer": f"w{i}"} for i in range(6)]
    task = swarm.Task.from_records("words", "exact", dev=questions)
    store = f"sqlite:///{tmp_path / 'swarm.db'}"

    def fit():
        runtime = swarm.Runtime({"server": ServerEngine(backoff=BACKOFF)})
        job = swarm.RoleStep(particles=3, iterations=2, seed=0)
        return job.fit(task, pool, store=store, runtime=runtime)

    first = fit()
    asked = len(server.asked)
    assert asked == sum(server.answered.values()) + 3
    again = fit()
    assert again.graph == first.graph
    assert len(server.asked) == asked
    assert not any(KEY.encode() in file.read_bytes() for file in tmp_path.iterdir())
