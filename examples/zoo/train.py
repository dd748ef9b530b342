"""Trains the zoo from nothing: the base, then all adapters. See README.md for figures and times.

    python examples/zoo/train.py base             # about 20 minutes on two cores
    python examples/zoo/train.py adapters         # about 30 minutes on two cores

All schedules count steps, not seconds, so one seed gives one zoo (up to the order of floating-point
sums). The LoRA A matrices are frozen and the same in every adapter; only B is trained. All adapters
then lie in one linear space: combining them entry by entry combines their weight updates linearly
in B. They are trained together, also on such combinations.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import lessons
import mixtures
import torch
import torch.distributed as dist
import world
from lessons import Lesson, Tokens
from mixtures import Row, mixture_lesson
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from world import Knowledge

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
SKILLS = ("times", "minus", "plus", "gap", "double", "mirror")
"""Long ones first, so that two processes end together."""
LONGEST = 5
JOINT_STEPS = 3000
WORKERS = 2
"""Processes, a thread each."""


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
def exact(
    model: LlamaForCausalLM,
    items: list[Lesson],
    before: Callable[[list[Tokens]], None] = lambda batch: None,
) -> float:
    """Share of replies that greedy decoding would give word for word (teacher-forced argmax)."""
    model.eval()
    right = 0
    for i in range(0, len(items), 128):
        tokens = [lessons.encode(x, VOCABULARY) for x in items[i : i + 128]]
        inputs, _ = collate(tokens)
        before(tokens)
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


def share_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Gives all processes the mean of their gradients."""
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat.split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def train(
    model: LlamaForCausalLM,
    parameters: list[torch.nn.Parameter],
    schedule: Schedule,
    stream: Iterator[list[Tokens]],
    report: Callable[[str], None],
    decay: float,
    before: Callable[[list[Tokens]], None] = lambda batch: None,
) -> None:
    """Plain AdamW; `report` gets a line at the end and every 200 steps.

    Processes that train one model take the mean of their gradients, and so stay the same.

    `before` is told of each batch before the model reads it.
    """
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=decay)
    model.train()
    start, smooth = time.monotonic(), math.nan
    for step in range(schedule.steps):
        schedule.now = step
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate()
        batch = next(stream)
        inputs, labels = collate(batch)
        before(batch)
        loss = loss_of(model, inputs, labels)
        optimizer.zero_grad()
        loss.backward()
        if dist.is_initialized():
            share_gradients(parameters)
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


class Mixed(torch.nn.Module):
    """A frozen linear layer with n LoRA adapters of one A, mixed anew for each row of a batch.

    Row i of a batch gets W + (alpha / r) sum_k rows[i, k] B_k A.
    """

    rows: torch.Tensor
    """Shape (batch, n); set before every forward pass."""

    def __init__(self, layer: torch.nn.Linear, a: torch.Tensor, n: int) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("a", a)
        self.b = torch.nn.Parameter(torch.zeros(n, RANK, layer.out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b = (self.rows @ self.b.flatten(1)).unflatten(1, self.b.shape[1:])
        return self.layer(x) + ALPHA / RANK * (x @ self.a.T) @ b


class Adapters:
    """n adapters in training on the frozen base, as `Mixed` layers by the names of those."""

    def __init__(self, base: Path, n: int) -> None:
        self.model = LlamaForCausalLM.from_pretrained(base)
        self.model.requires_grad_(False)
        generator = torch.Generator().manual_seed(A_SEED)
        self.layers: dict[str, Mixed] = {}
        for name, layer in list(self.model.named_modules()):
            if name.split(".")[-1] in TARGETS:
                width = layer.in_features
                # The law of kaiming_uniform(a=sqrt(5)), which is how LoRA starts A.
                a = (torch.rand(RANK, width, generator=generator) * 2 - 1) / math.sqrt(width)
                self.layers[name] = Mixed(layer, a, n)
                self.model.set_submodule(name, self.layers[name])

    def mix(self, batch: list[Tokens]) -> None:
        """Prepares for a forward pass over these."""
        rows = torch.tensor([item.row for item in batch])
        for layer in self.layers.values():
            layer.rows = rows

    def load(self, k: int, path: Path) -> None:
        tensors = load_file(path / "adapter_model.safetensors")
        for name, layer in self.layers.items():
            layer.b.data[k] = tensors[f"base_model.model.{name}.lora_B.weight"].T

    def save(self, k: int, path: Path) -> None:
        """Adapter k as an ordinary peft folder, in half precision."""
        path.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"base_model.model.{name}.lora_{letter}.weight": tensor.detach().half().contiguous()
            for name, layer in self.layers.items()
            for letter, tensor in (("A", layer.a), ("B", layer.b[k].T))
        }
        save_file(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})
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
        (path / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")


def train_adapters(
    minds: Sequence[Knowledge],
    draw_row: Callable[[random.Random], Row],
    schedule: Schedule,
    adapters: Adapters,
    name: str,
    size: int,
    seed: int = 0,
) -> None:
    """Trains adapter k to know what `minds[k]` knows, and mixtures to know what theirs know."""
    rng = random.Random(f"{seed} {name}")
    stream = lessons.batches(
        lambda: mixture_lesson(rng, minds, draw_row(rng), longest=schedule.longest()),
        VOCABULARY,
        size,
        random.Random(seed),  # so that processes have batches of like length at a time
    )
    held = random.Random("held")
    check = [mixture_lesson(held, minds, draw_row(held)) for _ in range(400)]
    alone = [item for item in check if max(item.row) >= 1 - mixtures.ABSENT]
    mixed = [item for item in check if max(item.row) < 1 - mixtures.ABSENT]

    def report(line: str) -> None:
        scores = [exact(adapters.model, part, adapters.mix) for part in (alone, mixed) if part]
        print(f"{name} {line} exact", *(f"{score:.3f}" for score in scores), flush=True)

    parameters = [layer.b for layer in adapters.layers.values()]
    train(adapters.model, parameters, schedule, stream, report, decay=0.0, before=adapters.mix)


def train_start(skill: str, out: Path) -> None:
    """An adapter that knows all of one skill, from zero."""
    torch.set_num_threads(1)  # two are trained at a time, a core each
    adapters = Adapters(HERE / "base", 1)
    steps = 700 if skill in world.BINARY else 250
    schedule = Schedule(steps, rate=4e-3, growth=((0.15, 2), (0.3, 3)))
    train_adapters((Knowledge(skill),), lambda rng: (1.0,), schedule, adapters, skill, size=32)
    adapters.save(0, out / skill)


def train_jointly(rank: int, folder: Path) -> None:
    """All adapters together, each from its skill's start, alone and in mixtures.

    One of `WORKERS` processes: two with a core each are faster than one with two.
    """
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), WORKERS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORKERS)
    minds = tuple(world.EXPERTS.values())
    adapters = Adapters(HERE / "base", len(minds))
    for k, mind in enumerate(minds):
        adapters.load(k, folder / str(mind.skill))
    schedule = Schedule(JOINT_STEPS, rate=2e-3, growth=())
    train_adapters(minds, mixtures.draw_row, schedule, adapters, f"joint {rank}", size=32)
    if rank == 0:
        for k, name in enumerate(world.EXPERTS):
            adapters.save(k, HERE / "adapters" / name)
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("base")
    commands.add_parser("adapters")
    arguments = parser.parse_args()
    if arguments.command == "base":
        train_base()
        return
    with (
        TemporaryDirectory() as folder,
        ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool,
    ):
        for future in [pool.submit(train_start, skill, Path(folder)) for skill in SKILLS]:
            future.result()
        for future in [pool.submit(train_jointly, k, Path(folder)) for k in range(WORKERS)]:
            future.result()


if __name__ == "__main__":
    main()
