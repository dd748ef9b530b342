"""Rows of many adapters in one batch, by slices: the same numbers as peft's own way."""

from __future__ import annotations

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swarm.agents.engines.mixed_lora import slices_of, take_slices


class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)

    def forward(self, x, **options):
        return self.second(self.first(x))


def model(**options):
    """Adapters `a` and `b` on both layers, `c` on the second only."""
    torch.manual_seed(0)
    config = {"r": 2, "lora_alpha": 3, "init_lora_weights": False, **options}
    made = peft.PeftModel(
        Two(), peft.LoraConfig(target_modules=["first", "second"], **config), adapter_name="a"
    )
    made.add_adapter("b", peft.LoraConfig(target_modules=["first", "second"], **config))
    made.add_adapter("c", peft.LoraConfig(target_modules=["second"], **config))
    return made.eval()


ROWS = ["__base__", "a", "a", "b", "c", "c"]
X = torch.randn(len(ROWS), 5, 8, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def run(made, names):
    return made(X, adapter_names=names)


@pytest.mark.parametrize("names", [ROWS, ROWS[::-1], ["a"] * 6, ["a", "b"] * 3])
def test_the_same_numbers_bit_for_bit(names):
    made = model()
    usual = run(made, names)
    take_slices(made)
    assert torch.equal(run(made, names), usual)
    assert not torch.equal(usual, run(made, ["__base__"] * 6))


def test_peft_gathers_no_rows_where_they_are_sorted(monkeypatch):
    made = model()
    take_slices(made)
    called = []
    layer = peft.tuners.lora.layer.Linear
    usual = layer._mixed_batch_forward
    monkeypatch.setattr(
        layer,
        "_mixed_batch_forward",
        lambda *args, **options: called.append(1) or usual(*args, **options),
    )
    run(made, ROWS)
    assert not called
    run(made, ["a", "b"] * 3)
    assert called


def test_what_is_refused_by_peft_still_is():
    made = model(use_dora=True)
    take_slices(made)
    with pytest.raises(ValueError, match="DoRA"):
        run(made, ROWS)


@given(st.lists(st.sampled_from("abc")))
def test_slices_are_all_rows_or_none(names):
    slices = slices_of(names)
    if slices is None:
        assert names != sorted(names)
    else:
        assert [name for name, rows in slices.items() for _ in names[rows]] == names
