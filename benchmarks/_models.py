"""Models that differ: written to a folder, since loading real files is what is to be measured."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

ZOO = Path(__file__).parent.parent / "examples" / "zoo"


def perturbed(folder: Path, count: int, *, seed: int = 0) -> list[Path]:
    """The zoo's base so many times, each with noise of its own: a fiftieth of what there is."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(ZOO / "base" / "model.safetensors")
    made = []
    for k in range(count):
        random = torch.Generator().manual_seed(seed + k)
        noised = {
            name: tensor + 0.02 * tensor.std() * torch.randn(tensor.shape, generator=random)
            for name, tensor in tensors.items()
        }
        made.append(_written(folder / f"model-{k:02}", ZOO / "base"))
        save_file(noised, made[-1] / "model.safetensors", metadata={"format": "pt"})
    return made


def random_llamas(
    folder: Path, count: int, *, width: int, layers: int, heads: int, vocabulary: int, seed: int = 0
) -> list[Path]:
    """Randomly initialised Llamas in bfloat16, with a tokenizer of as many words as tokens."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    specials = ["<pad>", "<bos>", "<eos>", "<unk>"]
    words = {w: i for i, w in enumerate([*specials, *(f"w{i}" for i in range(vocabulary - 4))])}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
    )
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=2048,
        initializer_range=0.02,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"  # a billion draws take a while
    made = []
    for k in range(count):
        torch.manual_seed(seed + k)
        with torch.device(device):
            model = LlamaForCausalLM(config).to(torch.bfloat16)
        made.append(folder / f"model-{k:02}")
        model.save_pretrained(made[-1])
        tokenizer.save_pretrained(made[-1])
        del model
    return made


def questions(count: int, words: int, vocabulary: int, *, seed: int = 0) -> list[str]:
    """Random words that `random_llamas` can read."""
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{i}" for i in rng.integers(0, vocabulary - 4, words)) for _ in range(count)]


def _written(folder: Path, of: Path) -> Path:
    shutil.copytree(of, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder
