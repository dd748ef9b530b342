"""Trains the zoo from nothing: the base, then every adapter. See README.md for figures and times.

    python examples/zoo/train.py base             # about 20 minutes on two cores
    python examples/zoo/train.py adapters         # about 20 minutes, two at a time
    python examples/zoo/train.py adapters plus    # only those of this skill

All schedules count steps, not seconds, so one seed gives one zoo (up to the order of floating-point
sums). The LoRA A matrices are frozen and the same in every adapter; only B is trained. All adapters
then lie in one linear space: combining them entry by entry combines their weight updates linearly
in B.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import lessons
import torch
import world
from lessons import Lesson, Tokens
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn import functional
from torch.nn.utils import parametrize
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from world import Facts, Knowledge, Step

HERE = Path(__file__).parent
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
WORDS = (
    *SPECIALS,
    *(f"{v:02d}" for v in range(world.MODULUS)),
    *world.VARIABLES,
    *world.SKILLS,
    *("=", ",", ";", "?", "pass", "done", "Question:", "Answer:"),
    *(f"{k}:" for k in range(1, 17)),
)
VOCABULARY = {word: i for i, word in enumerate(WORDS)}
CONTEXT = 512
RANK = 32
ALPHA = 64
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
A_SEED = 1234
OWN = 0.5
"""Share of an adapter's lessons that do a step which the base does not know."""
FAMILIES = ("times", "minus", "plus", "gap", "double", "mirror")
"""Long ones first, so that two processes end together."""
LONGEST = 5


def save_tokenizer(path: Path) -> None:
    """A word-level tokenizer: every word of the world is one token."""
    raw = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", VOCABULARY["<bos>"])]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ ' ' + m['content'] }}{% endfor %}"
    )
    tokenizer.save_pretrained(path)


def new_model(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=VOCABULARY["<bos>"],
            eos_token_id=VOCABULARY["<eos>"],
            pad_token_id=VOCABULARY["<pad>"],
            initializer_range=0.04,
        )
    )


def collate(batch: list[Tokens]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded (inputs, labels), each (batch, longest); causal, so no mask is needed."""
    width = max(len(t.inputs) for t in batch)
    inputs = torch.zeros(len(batch), width, dtype=torch.long)
    labels = torch.full((len(batch), width), lessons.IGNORE)
    for i, item in enumerate(batch):
        inputs[i, : len(item.inputs)] = torch.tensor(item.inputs)
        labels[i, : len(item.labels)] = torch.tensor(item.labels)
    return inputs, labels


def loss_of(model: LlamaForCausalLM, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state
    kept = labels[:, 1:] != lessons.IGNORE
    return functional.cross_entropy(model.lm_head(hidden[:, :-1][kept]), labels[:, 1:][kept])


@torch.no_grad()
def exact(model: LlamaForCausalLM, items: list[Lesson]) -> float:
    """Share of replies that greedy decoding would give word for word (teacher-forced argmax)."""
    model.eval()
    right = 0
    for i in range(0, len(items), 128):
        tokens = [lessons.encode(x, VOCABULARY) for x in items[i : i + 128]]
        inputs, _ = collate(tokens)
        best = model(input_ids=inputs, use_cache=False).logits.argmax(-1)
        for row, item, token in zip(best, items[i : i + 128], tokens, strict=True):
            start = len(item.prompt.split()) + 1
            stop = len(token.inputs)
            right += row[start - 1 : stop - 1].tolist() == token.inputs[start:stop]
    model.train()
    return right / len(items)


@dataclass
class Schedule:
    """Linear warm-up, then a cosine to `floor` * rate; questions grow longer as `now` goes on."""

    steps: int
    rate: float
    warmup: int = 100
    floor: float = 0.03
    growth: tuple[tuple[float, int], ...] = ((0.06, 2), (0.18, 3))
    now: int = 0

    def learning_rate(self) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * self.now / self.steps))
        warm = min(1.0, (self.now + 1) / self.warmup)
        return self.rate * warm * (self.floor + (1 - self.floor) * cosine)

    def longest(self) -> int:
        """Steps of the longest questions asked now."""
        return next((k for until, k in self.growth if self.now < until * self.steps), LONGEST)


def train(
    model: LlamaForCausalLM,
    parameters: list[torch.nn.Parameter],
    schedule: Schedule,
    stream: Iterator[list[Tokens]],
    report: Callable[[str], None],
    decay: float,
) -> None:
    """Plain AdamW; `report` gets a line at the end and every 200 steps."""
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=decay)
    model.train()
    start, smooth = time.monotonic(), math.nan
    for step in range(schedule.steps):
        schedule.now = step
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate()
        inputs, labels = collate(next(stream))
        loss = loss_of(model, inputs, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        smooth = loss.item() if math.isnan(smooth) else 0.97 * smooth + 0.03 * loss.item()
        if (step + 1) % 200 == 0 or step + 1 == schedule.steps:
            minutes = (time.monotonic() - start) / 60
            report(f"{step + 1}/{schedule.steps} {minutes:.1f} min loss {smooth:.4f}")


def train_base(seed: int = 0) -> None:
    """A long run from nothing, then a shorter one that goes on from it at half the rate."""
    rng, mind = random.Random(seed), Knowledge()
    model = new_model(seed)
    go_on(model, Schedule(3600, 2e-3), rng, mind)
    go_on(model, Schedule(1200, 1e-3, growth=()), rng, mind)
    model.save_pretrained(HERE / "base")
    save_tokenizer(HERE / "base")


def go_on(model: LlamaForCausalLM, schedule: Schedule, rng: random.Random, mind: Knowledge) -> None:
    """One run of `train_base`."""
    stream = lessons.batches(
        lambda: lessons.lesson(rng, mind, longest=schedule.longest()), VOCABULARY, 64, rng
    )
    held = random.Random(999)
    check = [lessons.lesson(held, mind) for _ in range(512)]

    def report(line: str) -> None:
        print(f"base {line} exact {exact(model, check):.3f}", flush=True)

    train(model, list(model.parameters()), schedule, stream, report, decay=0.01)


class LowRank(torch.nn.Module):
    """Weight parametrisation W + (alpha / r) B A: LoRA at the speed of the dense layer."""

    def __init__(self, a: torch.Tensor, rows: int) -> None:
        super().__init__()
        self.register_buffer("a", a)
        self.b = torch.nn.Parameter(torch.zeros(rows, RANK))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + ALPHA / RANK * self.b @ self.a


def adapted(base: Path) -> tuple[LlamaForCausalLM, dict[str, LowRank]]:
    """The frozen base with a fresh adapter, by the name of the layer it adds to."""
    model = LlamaForCausalLM.from_pretrained(base)
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(A_SEED)
    parts = {}
    for name, layer in list(model.named_modules()):
        if name.split(".")[-1] in TARGETS:
            width = layer.in_features
            # The law of kaiming_uniform(a=sqrt(5)), which is how LoRA starts A.
            a = (torch.rand(RANK, width, generator=generator) * 2 - 1) / math.sqrt(width)
            parts[name] = LowRank(a, layer.out_features)
            parametrize.register_parametrization(layer, "weight", parts[name])
    return model, parts


def save_adapter(parts: dict[str, LowRank], out: Path) -> None:
    """An ordinary peft folder, in half precision."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"base_model.model.{name}.lora_{letter}.weight": tensor.detach().half().contiguous()
        for name, part in parts.items()
        for letter, tensor in (("A", part.a), ("B", part.b))
    }
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "../../base",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "target_modules": list(TARGETS),
        "bias": "none",
        "inference_mode": True,
    }
    (out / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")


def load_adapter(parts: dict[str, LowRank], path: Path) -> None:
    tensors = load_file(path / "adapter_model.safetensors")
    for name, part in parts.items():
        part.b.data.copy_(tensors[f"base_model.model.{name}.lora_B.weight"])


def adapter_lesson(rng: random.Random, mind: Knowledge, longest: int) -> Lesson:
    """With `OWN` a step that this expert knows and the base does not; else anything at all."""
    assert mind.skill is not None

    def new(step: Step | None, facts: Facts) -> bool:
        if step is None:
            return False
        values = step.values(facts)
        return mind.owns(step.skill, values) and not Knowledge().knows(step.skill, values)

    if rng.random() < OWN:
        return lessons.lesson(
            rng, mind, longest=longest, skills=(*world.SKILLS, *[mind.skill] * 4), accept=new
        )
    # Own steps come often here too: the expert has to tell its part of the table from the rest.
    skills = rng.choice((world.SKILLS, (*world.SKILLS, *[mind.skill] * 4)))
    return lessons.lesson(rng, mind, longest=longest, skills=skills)


def train_adapter(
    mind: Knowledge, schedule: Schedule, out: Path, start: Path | None = None, seed: int = 0
) -> None:
    """One adapter, from zero or from where the adapter in `start` ended."""
    torch.set_num_threads(1)  # two adapters are trained at a time, a core each
    name = out.name
    rng = random.Random(f"{seed} {name}")
    model, parts = adapted(HERE / "base")
    if start:
        load_adapter(parts, start)
    stream = lessons.batches(
        lambda: adapter_lesson(rng, mind, schedule.longest()), VOCABULARY, 32, rng
    )
    held = random.Random(f"held {name}")
    check = [adapter_lesson(held, mind, LONGEST) for _ in range(256)]

    def report(line: str) -> None:
        print(f"{name} {line} exact {exact(model, check):.3f}", flush=True)

    train(model, [p.b for p in parts.values()], schedule, stream, report, decay=0.0)
    save_adapter(parts, out)


def train_family(skill: str, starts: Path) -> None:
    """All adapters of one skill: the whole table, or two halves that begin at one common start.

    The common start knows the whole table. Each half then only unlearns the other one, and so their
    mean, which unlearns either by half, still knows both.
    """
    whole = Schedule(
        steps=1200 if skill in world.BINARY else 500, rate=4e-3, growth=((0.15, 2), (0.3, 3))
    )
    halves = {name: m for name, m in world.EXPERTS.items() if m.skill == skill and m.part}
    if not halves:
        train_adapter(Knowledge(skill), whole, HERE / "adapters" / skill)
        return
    start = starts / f"{skill}_start"
    train_adapter(Knowledge(skill), whole, start)
    for name, mind in halves.items():
        half = Schedule(steps=350, rate=1.5e-3, growth=())
        train_adapter(mind, half, HERE / "adapters" / name, start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("base")
    commands.add_parser("adapters").add_argument("skills", nargs="*", default=FAMILIES)
    arguments = parser.parse_args()
    if arguments.command == "base":
        train_base()
        return
    with (
        TemporaryDirectory() as folder,
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool,
    ):
        for future in [pool.submit(train_family, s, Path(folder)) for s in arguments.skills]:
            future.result()


if __name__ == "__main__":
    main()
