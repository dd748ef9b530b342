"""The transformers engine keeps the contract, on a tiny model with adapters of awkward names."""

from __future__ import annotations

import asyncio
import shutil
import warnings

import pytest
from engine_contract import EngineContract, after, ask, greedy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import make_base

from swarm.agents.engines import create_engine
from swarm.agents.engines.checkpoints import Prefetch
from swarm.agents.engines.transformers import ALLOWANCE
from swarm.agents.expert import Expert, Pool
from swarm.agents.messages import Message, Request, Response
from swarm.errors import ConfigError, EngineError, OutOfMemoryError, RequestError

pytest.importorskip("torch")
pytest.importorskip("peft")

ADAPTERS = (None, "double", "half", "train")


@pytest.fixture(scope="module")
def engine():
    engine = create_engine("transformers", batch_tokens=300, device="cpu")
    yield engine
    asyncio.run(engine.close())


@pytest.fixture
def experts(zoo):
    return [
        Expert(
            name=name or "base",
            model=str(zoo / "base"),
            adapter=str(zoo / name) if name else None,
            sampling=greedy(),
        )
        for name in ADAPTERS
    ]


class TestTransformers(EngineContract):
    @pytest.fixture
    def engine(self, engine):
        return engine

    @pytest.fixture
    def experts(self, experts):
        return experts

    @pytest.fixture
    def prompts(self):
        return ["w1", "w2 w3", "w4 " * 9, "w5 w6 w7", "w8 " * 40, "w9 w10 w11 w12"]

    @pytest.fixture
    def hopeless(self, experts):
        told = ["a prompt of 121 tokens and `max_tokens` 12", "128", "lower `max_tokens`"]
        return Request(experts[1], ask("w1 " * 120)), told

    @pytest.fixture
    def broken(self, tmp_path):
        return Expert(name="gone", model=str(tmp_path / "gone"), sampling=greedy())

    @pytest.fixture
    def sabotage(self):
        from transformers import LlamaForCausalLM

        error = RuntimeError("the device is gone")
        return lambda engine: after(3, LlamaForCausalLM, "forward", error)


def generate(engine, requests):
    return asyncio.run(engine.generate(requests))


def test_the_longest_prompt_that_fits_is_answered(engine, experts):
    fits, too_long = generate(
        engine, [Request(experts[0], ask("w1 " * n)) for n in (128 - 12 - 1, 128 - 12)]
    )
    assert isinstance(fits, Response)
    assert fits.usage.prompt_tokens == 128 - 12  # with the one that begins it
    assert isinstance(too_long, RequestError)


def test_where_memory_runs_out_in_the_middle_of_a_mixed_batch_it_is_halved(engine, experts):
    import torch
    from transformers import LlamaForCausalLM

    requests = [Request(experts[i % 4], ask(f"w{i} w{i + 1}")) for i in range(8)]
    expected = [answer.text for answer in generate(engine, requests)]
    right, made = LlamaForCausalLM.forward, 0

    def forward(*args, **kwargs):
        nonlocal made
        made += 1
        if made == 3:
            raise torch.OutOfMemoryError
        return right(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlamaForCausalLM, "forward", forward)
        assert [answer.text for answer in generate(engine, requests)] == expected
    assert made > 3


def test_adapters_change_answers_and_the_base_stays_as_it_is(zoo, engine, experts):
    alone = create_engine("transformers", device="cpu")
    request = Request(experts[0], ask("w1 w2"))
    [bare] = generate(alone, [request])  # no adapter was ever loaded here
    answers = generate(engine, [Request(expert, request.messages) for expert in experts])
    assert answers[0].text == bare.text
    assert len({answer.text for answer in answers}) == len(experts)


def test_a_model_with_no_adapter_is_asked_like_bare_transformers(zoo, engine, experts):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(zoo / "base", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(zoo / "base")
    texts = ["w1", "w2 w3 w4", "w5 " * 20]
    answers = generate(engine, [Request(experts[0], ask(text)) for text in texts])
    for text, answer in zip(texts, answers, strict=True):
        ids = tokenizer("<bos> " + text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        out = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        assert answer.text == tokenizer.decode(out, skip_special_tokens=True)
        assert answer.usage == (ids.shape[1], len([t for t in out.tolist() if t != 2]))


def test_a_template_that_takes_no_system_turn_gets_it_before_the_users(engine, experts):
    parts = [
        (Message("system", "w59"), Message("user", "w1")),
        (Message("user", "w59\n\nw1"),),
    ]
    first, second = generate(engine, [Request(experts[0], messages) for messages in parts])
    assert first.text == second.text


def test_a_model_without_a_chat_template_reads_plain_text(zoo, tmp_path, engine):
    shutil.copytree(zoo / "base", tmp_path / "plain")
    (tmp_path / "plain" / "chat_template.jinja").unlink()
    expert = Expert(name="plain", model=str(tmp_path / "plain"), sampling=greedy())
    both = (Message("system", "w1"), Message("user", "w2"))
    one, other, empty = generate(
        engine, [Request(expert, messages) for messages in (both, ask("w1\n\nw2"), ask(""))]
    )
    assert one.text == other.text
    assert one.usage.prompt_tokens == 2
    assert empty.usage.prompt_tokens == 1


def test_an_adapter_that_breaks_fails_its_own_requests(zoo, tmp_path, engine, experts):
    shutil.copytree(zoo / "half", tmp_path / "torn")
    (tmp_path / "torn" / "adapter_model.safetensors").write_bytes(b"torn")
    torn = Expert(
        name="torn", model=str(zoo / "base"), adapter=str(tmp_path / "torn"), sampling=greedy()
    )
    requests = [Request(expert, ask("w1")) for expert in (experts[1], torn, experts[2])]
    asyncio.run(engine.load(torn.base, [torn, *experts]))
    first, failed, last = generate(engine, requests)
    assert isinstance(failed, EngineError)
    assert f"adapter `{tmp_path / 'torn'}` can't be loaded" in str(failed)
    assert [first, last] == [
        generate(engine, [request])[0]._replace(seconds=answer.seconds)
        for request, answer in [(requests[0], first), (requests[2], last)]
    ]


def test_few_adapters_stay_loaded(zoo, tmp_path):
    engine = create_engine("transformers", device="cpu", adapters=2)
    names = [f"copy{i}" for i in range(5)]
    for name in names:
        shutil.copytree(zoo / "half", tmp_path / name)
    experts = [
        Expert(name=n, model=str(zoo / "base"), adapter=str(tmp_path / n), sampling=greedy())
        for n in names
    ]
    for _ in range(2):
        texts = {generate(engine, [Request(expert, ask("w1"))])[0].text for expert in experts}
        assert len(texts) == 1
    together = generate(engine, [Request(expert, ask("w1")) for expert in experts])
    assert {answer.text for answer in together} == texts
    generate(engine, [Request(experts[0], ask("w1"))])
    [base] = engine._bases.values()
    assert len(base.model.peft_config) == 2


class Full:
    """A device on which no more than `room` requests have room."""

    def __init__(self, engine, room, monkeypatch, expert):
        import torch

        base = engine._bases[expert.base]
        generate = base.model.generate
        self.sizes = []

        def limited(**arguments):
            self.sizes.append(len(arguments["input_ids"]))
            if self.sizes[-1] > room:
                raise torch.OutOfMemoryError("no room")
            return generate(**arguments)

        monkeypatch.setattr(base.model, "generate", limited)


@pytest.mark.parametrize("room", [1, 2, 3, 5])
def test_out_of_memory_the_batch_is_halved(engine, experts, monkeypatch, room):
    requests = [Request(expert, ask(f"w{i} w1")) for i in range(5, 9) for expert in experts]
    expected = [answer.text for answer in generate(engine, requests)]
    full = Full(engine, room, monkeypatch, experts[0])
    assert [answer.text for answer in generate(engine, requests)] == expected
    assert full.sizes[0] == 16
    assert min(full.sizes) <= room


def test_no_room_for_even_one_fails_that_one(engine, experts, monkeypatch):
    requests = [Request(experts[0], ask("w1")), Request(experts[1], ask("w2"))]
    generate(engine, requests)
    Full(engine, 0, monkeypatch, experts[0])
    for answer in generate(engine, requests):
        assert isinstance(answer, OutOfMemoryError)
        assert "no room on `cpu` for one prompt of 2 tokens" in str(answer)


lengths = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 3), st.integers(1, 40)), max_size=80
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths)
def test_batches_stay_under_the_budget(engine, experts, some):
    requests = [
        Request(
            experts[k].model_copy(
                update={"sampling": greedy().model_copy(update={"max_tokens": m})}
            ),
            ask("w1 " * n),
        )
        for n, k, m in some
    ]
    batches = asyncio.run(engine.plan(requests))
    assert sorted(i for batch in batches for i in batch) == list(range(len(some)))
    for batch in batches:
        width = max(1 + some[i][0] + some[i][2] for i in batch)
        assert len(batch) == 1 or width * len(batch) <= 300


def test_many_of_one_adapter_and_few_of_others_are_planned_in_few_batches(zoo, experts):
    engine = create_engine("transformers", device="cpu", batch_tokens=2000)
    requests = [Request(experts[0], ask("w1 " * (i % 60))) for i in range(200)]
    requests += [Request(experts[1 + i % 3], ask("w1 " * (i % 60))) for i in range(60)]
    tokens = sum(len(request.messages[0].content.split()) + 13 for request in requests)
    assert len(asyncio.run(engine.plan(requests))) <= 1.5 * tokens / 2000 + 2


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_model_that_is_damaged_says_which(zoo, tmp_path, file):
    shutil.copytree(zoo / "base", tmp_path / "base")
    (tmp_path / "base" / file).write_bytes(b"{ damaged")
    engine = create_engine("transformers", device="cpu")
    expert = Expert(name="x", model=str(tmp_path / "base"))
    with pytest.raises(EngineError, match="can't be loaded"):
        asyncio.run(engine.load(expert.base, [expert]))


def test_pickles_are_not_loaded(zoo, tmp_path):
    import torch
    from safetensors.torch import load_file

    shutil.copytree(zoo / "base", tmp_path / "base")
    weights = tmp_path / "base" / "model.safetensors"
    torch.save(load_file(weights), tmp_path / "base" / "pytorch_model.bin")
    weights.unlink()
    expert = Expert(name="x", model=str(tmp_path / "base"))
    with pytest.raises(EngineError):
        asyncio.run(create_engine("transformers", device="cpu").load(expert.base, [expert]))


def test_several_event_loops_take_turns(engine, experts):
    from concurrent.futures import ThreadPoolExecutor

    requests = [Request(expert, ask(f"w{i}")) for i in range(3) for expert in experts]
    expected = [answer.text for answer in generate(engine, requests)]
    with ThreadPoolExecutor(4) as threads:
        answers = threads.map(lambda request: generate(engine, [request])[0].text, requests)
        assert list(answers) == expected


def test_nothing_is_said_on_the_way(zoo, experts, capfd):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Pool(experts)
        generate(
            create_engine("transformers", device="cpu"), [Request(e, ask("w1")) for e in experts]
        )
    assert [str(warning.message) for warning in said] == []
    assert capfd.readouterr() == ("", "")


def other(zoo, tmp_path):
    """A base with other weights than the zoo's, and its expert."""
    make_base(tmp_path / "other", seed=5)
    return Expert(name="other", model=str(tmp_path / "other"), sampling=greedy())


@pytest.mark.parametrize("keeps", [False, True])
def test_a_base_that_was_read_ahead_answers_as_one_that_was_not(
    zoo, experts, tmp_path, keeps, monkeypatch
):
    second = other(zoo, tmp_path)
    requests = [Request(second, ask(text)) for text in ("w1", "w2 w3")]
    expected = [a.text for a in generate(create_engine("transformers", device="cpu"), requests)]
    made = []

    class Kept(Prefetch):
        """As for an accelerator: tensors are kept in host memory."""

        def __init__(self, base, *, keep):
            super().__init__(base, keep=keeps)
            made.append(self)

    monkeypatch.setattr("swarm.agents.engines.transformers.Prefetch", Kept)
    engine = create_engine("transformers", device="cpu")

    async def work():
        await engine.load(experts[0].base, experts[:1])
        reading = asyncio.create_task(engine.prefetch(second.base, [second]))
        first = await engine.generate([Request(experts[0], ask("w1"))])
        assert await reading
        assert isinstance(first[0], Response)
        # It is not what is loaded next.
        await engine.unload(experts[0].base)
        await engine.load(experts[0].base, experts[:1])
        await engine.load(second.base, [second])
        return await engine.generate(requests)

    assert [answer.text for answer in asyncio.run(work())] == expected
    assert len(made) == 1
    assert bool(made[0].tensors) == keeps


def test_reading_ahead_may_be_cancelled_fail_or_be_given_up(zoo, experts, tmp_path):
    second = other(zoo, tmp_path)
    engine = create_engine("transformers", device="cpu")
    gone = Expert(name="gone", model=str(tmp_path / "gone"), sampling=greedy())

    async def work():
        assert not await engine.prefetch(gone.base, [gone])
        reading = asyncio.create_task(engine.prefetch(second.base, [second]))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await engine.prefetch(experts[0].base, experts[:1])
        engine.forget()
        for expert in (second, experts[0]):
            await engine.load(expert.base, [expert])
            [answered] = await engine.generate([Request(expert, ask("w1"))])
            assert isinstance(answered, Response)
        assert not await engine.prefetch(second.base, [second]), "it is loaded"

    asyncio.run(work())


def test_sizes_are_those_of_the_files_in_the_type_that_is_used(zoo, experts):
    from safetensors.torch import load_file

    def numbers(folder):
        tensors = load_file(next((zoo / folder).glob("*.safetensors")))
        return sum(tensor.numel() for tensor in tensors.values())

    base, adapters = numbers("base"), [numbers(name) for name in ADAPTERS if name]
    engine = create_engine("transformers", device="cpu")
    half = create_engine("transformers", device="cpu", dtype="bfloat16")
    one = experts[0].base
    assert engine.size(one, experts[:1]) == int(ALLOWANCE * 4 * base)
    assert half.size(one, experts[:1]) == int(ALLOWANCE * 2 * base)
    assert engine.size(one, experts) == int(ALLOWANCE * 4 * base) + 4 * sum(adapters)
    few = create_engine("transformers", device="cpu", adapters=1)
    assert few.size(one, experts) == int(ALLOWANCE * 4 * base) + 4 * max(adapters)
    gone = Expert(name="gone", model="no-such/model", sampling=greedy())
    assert engine.size(gone.base, [gone]) is None


def test_an_experts_device_counts_more_and_is_part_of_its_base(zoo, experts):
    engine = create_engine("transformers", device="cpu")
    there = experts[0].model_copy(update={"options": {"device": "cuda"}})
    assert (engine.device_of(experts[0]), engine.device_of(there)) == ("cpu", "cuda:0")
    assert there.base == f"{experts[0].base}@cuda"
    assert there.fingerprint == experts[0].fingerprint
    with pytest.raises(ConfigError, match=r"key `options.device`: `7` must be a text"):
        Pool([experts[0].model_copy(update={"options": {"device": 7}})])
