"""A Llama of two small layers that talks nonsense, and adapters that change its mind.

The adapters are called like methods of torch's modules: registered under these names in peft, they
would hide them.
"""

from __future__ import annotations

import json

ADAPTERS = ("double", "half", "train")
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
WORDS = (*SPECIALS, *(f"w{i}" for i in range(60)))
CONTEXT = 128
WIDTH = 32


def make(folder):
    make_base(folder / "base", seed=0)
    for seed, name in enumerate(ADAPTERS):
        make_adapter(folder / name, seed)
    return folder


def make_base(path, seed, width=WIDTH):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.5,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    make_tokenizer(path)


def make_tokenizer(path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
    )
    tokenizer.chat_template = (
        "<bos>{% for m in messages %}"
        "{% if m['role'] == 'system' and 'w59' in m['content'] %}"
        "{{ raise_exception('no system turns') }}{% endif %}"
        " {{ m['content'] }}{% endfor %}"
    )
    tokenizer.save_pretrained(path)


def make_adapter(path, seed, width=WIDTH, **config):
    import torch
    from safetensors.torch import save_file

    path.mkdir(parents=True)
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(2):
        for target in ("q_proj", "v_proj"):
            name = f"base_model.model.model.layers.{layer}.self_attn.{target}.lora"
            tensors[f"{name}_A.weight"] = torch.randn(4, width, generator=random)
            tensors[f"{name}_B.weight"] = torch.randn(width, 4, generator=random)
    save_file(tensors, path / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 4,
        "lora_alpha": 4,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
    }
    (path / "adapter_config.json").write_text(json.dumps(settings | config))
