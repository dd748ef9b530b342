"""Trains the zoo from nothing: the base, then every adapter. See README.md for figures and times.

    python examples/zoo/train.py base                # about 25 minutes on two cores
    python examples/zoo/train.py adapters            # about 25 minutes, two at a time
    python examples/zoo/train.py adapters plus_lo    # only these (and the start they need)

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
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import lessons
import torch
import world
from lessons import Lesson, Tokens
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
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
A_SEED = 1234


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
    """Right-padded (inputs, labels), each of shape (batch, longest); causal, so no mask is needed."""
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


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a cosine to `floor`·lr; questions grow longer as training goes on."""

    steps: int
    rate: float
    warmup: int = 100
    floor: float = 0.03
    growth: tuple[tuple[float, int], ...] = ((0.06, 2), (0.18, 3), (1.01, 5))

    def rate_at(self, step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.rate * min(1.0, (step + 1) / self.warmup) * (self.floor + (1 - self.floor) * cosine)

    def longest_at(self, step: int) -> int:
        return next(k for until, k in self.growth if step < until * self.steps)


def train(
    model: LlamaForCausalLM,
    parameters: list[torch.nn.Parameter],
    schedule: Schedule,
    stream: Iterator[list[Tokens]],
    advance: Any,
    report: Any,
    decay: float,
) -> dict[str, float]:
    """Plain AdamW. `advance(step)` before each step; `report(step, loss, seconds)` now and then."""
    optimizer = torch.optim.AdamW(parameters, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=decay)
    model.train()
    start, smooth, seen = time.monotonic(), None, 0
    for step in range(schedule.steps):
        advance(step)
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate_at(step)
        inputs, labels = collate(next(stream))
        loss = loss_of(model, inputs, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        seen += inputs.numel()
        smooth = loss.item() if smooth is None else 0.97 * smooth + 0.03 * loss.item()
        if (step + 1) % 200 == 0:
            report(step + 1, smooth, time.monotonic() - start)
    return {"steps": schedule.steps, "tokens": seen, "loss": round(smooth or 0.0, 4),
            "minutes": round((time.monotonic() - start) / 60, 1)}


def train_base(out: Path, seed: int, steps: int) -> None:
    rng = random.Random(seed)
    model = new_model(seed)
    mind = Knowledge()
    schedule = Schedule(steps, rate=2e-3)
    longest = 2

    def advance(step: int) -> None:
        nonlocal longest
        longest = schedule.longest_at(step)

    stream = lessons.batches(
        lambda: lessons.lesson(rng, mind, longest=longest), VOCABULARY, 64, rng
    )
    held = random.Random(999)
    check = [lessons.lesson(held, mind) for _ in range(512)]

    def report(step: int, loss: float, seconds: float) -> None:
        print(f"base {step}/{steps} loss {loss:.4f} exact {exact(model, check):.3f} "
              f"{seconds:.0f} s", flush=True)
        model.save_pretrained(out)

    info = train(model, list(model.parameters()), schedule, stream, advance, report, decay=0.01)
    model.save_pretrained(out)
    save_tokenizer(out)
    info["exact"] = exact(model, check)
    (out / "train_info.json").write_text(json.dumps(info, indent=1) + "\n")
