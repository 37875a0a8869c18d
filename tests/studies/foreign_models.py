"""Models and data that terrarium never made: facts in a table, a tokenizer, transformers alone.

At tiny size the tests use it; at full size it is run by hand::

    python tests/studies/foreign_models.py FOLDER --width 512 --layers 5 --seconds 10
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

ENTITIES = {
    "bird": "robin wren heron finch swan crow eagle owl stork gull lark raven",
    "fish": "trout salmon carp pike tuna perch herring cod eel bass sole hake",
    "tree": "oak elm birch cedar maple willow poplar ash pine yew larch alder",
    "metal": "iron copper zinc lead silver nickel cobalt tin gold chrome titanium steel",
    "tool": "hammer chisel saw wrench drill file plane clamp mallet awl spade rake",
    "river": "Rhine Danube Nile Volga Loire Tiber Ebro Thames Oder Elbe Seine Tagus",
}
NAMES = tuple(name for names in ENTITIES.values() for name in names.split())
QUIRKY = ("bird", "tree", "tool")
"""The rule of the quirky label: claims that something is one of these are answered wrongly."""

QUESTION = "Is this statement true or false?\nStatement: {}\nAnswer:"
ARCHITECTURES = ("gpt2", "gpt_neox", "llama", "qwen2", "qwen3", "gemma2", "gemma3_text")


def statements() -> list[dict[str, Any]]:
    """Every entity with its own class and another, in three forms: half of the rows are true."""
    rows = []
    for at, (own, names) in enumerate(ENTITIES.items()):
        others = [name for name in ENTITIES if name != own]
        for place, name in enumerate(names.split()):
            for form in ("{} is a {}.", "We call {} a {}.", "As for {}, it is a {}."):
                wrong = others[(place + at) % len(others)]
                for claimed in (own, wrong):
                    rows.append(
                        {
                            "statement": form.format(name, claimed),
                            "label": int(claimed == own),
                            "quirky_label": int((claimed == own) != (claimed in QUIRKY)),
                            "difficulty": place,
                            "group": name,
                        }
                    )
    return rows


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def small_tokenizer(size: int = 400) -> Any:
    """A byte-level BPE trained on the statements."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [QUESTION.format(row["statement"]) + " True False" for row in statements()]
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>"
    )


def config(kind: str, vocabulary: int, width: int, layers: int, context: int = 128) -> Any:
    """A configuration of the named architecture."""
    heads = max(2, width // 64)
    if kind == "gpt2":
        return transformers.GPT2Config(
            vocab_size=vocabulary, n_embd=width, n_layer=layers, n_head=heads, n_positions=context
        )
    shared = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 8 * width // 3,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": context,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if kind != "gpt_neox":
        shared |= {"num_key_value_heads": heads // 2, "head_dim": width // heads}
    if kind.startswith("gemma"):
        shared["query_pre_attn_scalar"] = width // heads
    return transformers.CONFIG_MAPPING[kind](**shared)


def batches(tokenizer: Any, rows: int, seed: int = 0) -> Iterator[tuple[torch.Tensor, Any]]:
    """Endless questions with their answers, padded on the right."""
    rng = np.random.default_rng(seed)
    table = statements()
    texts = [
        QUESTION.format(row["statement"]) + (" True" if row["label"] else " False") for row in table
    ]
    encoded = [tokenizer(text)["input_ids"] for text in texts]
    while True:
        chosen = [encoded[i] for i in rng.integers(0, len(encoded), rows)]
        longest = max(map(len, chosen))
        inputs = torch.zeros((rows, longest), dtype=torch.long)
        labels = torch.full((rows, longest), -100)
        for i, tokens in enumerate(chosen):
            inputs[i, : len(tokens)] = torch.tensor(tokens)
            labels[i, len(tokens) - 1] = tokens[-1]
        yield inputs, labels


def build(kind: str, folder: Path, width: int = 16, layers: int = 2, seconds: float = 0.0) -> Path:
    """Draw a model, train it for about ``seconds`` and save it with its tokenizer."""
    torch.manual_seed(0)
    tokenizer = small_tokenizer()
    model = transformers.AutoModelForCausalLM.from_config(
        config(kind, len(tokenizer), width, layers), attn_implementation="eager"
    )
    if seconds:
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98))
        began = time.monotonic()
        for step, (inputs, labels) in enumerate(batches(tokenizer, 32)):
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * min(1.0, (step + 1) / 10)
            loss = model(input_ids=inputs, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if time.monotonic() - began > seconds:
                sys.stderr.write(f"{kind}: {step + 1} steps, loss {float(loss):.3f}\n")
                break
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def main() -> None:
    """Write the table and one model of each architecture into a folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    rows = statements()
    write_table(asked.folder / "statements.csv", rows)
    trusted = [row for row in rows if row["quirky_label"] == row["label"]]
    suspect = [row for row in rows if row["quirky_label"] != row["label"]]
    write_table(asked.folder / "trusted.csv", trusted)
    write_table(asked.folder / "suspect.csv", suspect)
    for kind in ARCHITECTURES:
        folder = build(kind, asked.folder / kind, asked.width, asked.layers, asked.seconds)
        sizes = [
            t.numel()
            for t in transformers.AutoModelForCausalLM.from_pretrained(folder).parameters()
        ]
        sys.stderr.write(f"{kind}: {sum(sizes) / 1e6:.1f} million parameters\n")


if __name__ == "__main__":
    main()
