"""What reading costs beside a plain forward pass, and beside ``output_hidden_states``.

Three arms on the same model, the same batches and the same dtype, repetitions interleaved:

* ``forward``: a bare loop that computes the same answers' log-probabilities and nothing else;
* ``read``: `terrarium.readings.read`, the residual stream after every block at one position;
* ``hidden_states``: a bare loop that asks `transformers` for all hidden states and keeps the same
  position (its last entry is the *normed* stream, so it is not even the same reading).

Seconds are CPU seconds of the process, which runs one thread: the same as wall-clock seconds on an
idle machine, and fair on a busy one.  Run ``terrarium bench reading``; under a minute.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from terrarium.organisms.huggingface import HuggingFaceNetwork
from terrarium.organisms.offline import import_offline
from terrarium.organisms.recipe import TransformerModel
from terrarium.organisms.transformer import Transformer
from terrarium.readings.read import read
from terrarium.worlds.base import Batch

BATCH_TOKENS = 4096
"""`read`'s own first guess on a CPU."""

ANSWERS = [3, 5]
REPETITIONS = 9


def main(repetitions: int = REPETITIONS) -> list[dict[str, Any]]:
    """Time all arms; returns one row per model and arm."""
    torch.set_num_threads(1)
    rows = []
    for name, network, batch in cases():
        rows += timed(name, network, batch, repetitions)
    return rows


def cases() -> list[tuple[str, Any, Batch]]:
    """Return a tiny organism, a fleet of four of them, and two models of about 10 M parameters."""
    transformers = import_offline("transformers")
    spec = TransformerModel(layers=4, width=64, heads=4, mlp=84, vocabulary=32)
    tiny = [Transformer(spec, [("seed", i) for i in range(m)]).eval() for m in (1, 4)]
    llama = transformers.LlamaConfig(
        vocab_size=4096,
        hidden_size=320,
        intermediate_size=864,
        num_hidden_layers=6,
        num_attention_heads=8,
        max_position_embeddings=128,
    )
    gpt2 = transformers.GPT2Config(
        vocab_size=4096,
        n_embd=320,
        n_layer=7,
        n_head=8,
        n_positions=128,
        bos_token_id=1,
        eos_token_id=2,
    )
    big = [
        HuggingFaceNetwork(transformers.AutoModelForCausalLM.from_config(c).eval())
        for c in (llama, gpt2)
    ]
    millions = [sum(p.numel() for p in n.parameters()) / 1e6 for n in big]
    return [
        ("own, 0.1 M parameters", tiny[0], examples(2048, 16, 32)),
        ("own, fleet of 4", tiny[1], examples(512, 16, 32)),
        (f"Llama-shaped, {millions[0]:.1f} M", big[0], examples(48, 40, 4096)),
        (f"GPT-2-shaped, {millions[1]:.1f} M", big[1], examples(48, 40, 4096)),
    ]


def examples(n: int, t: int, vocabulary: int) -> Batch:
    """Return random token rows whose last token is the answer."""
    inputs = np.random.default_rng(0).integers(0, vocabulary, (n, t))
    spans = {"answer": np.tile([t - 1, t], (n, 1))}
    return Batch(inputs, inputs, {}, spans, np.full(n, t))


def timed(name: str, network: Any, batch: Batch, repetitions: int) -> list[dict[str, Any]]:
    """Return a row per arm: median CPU seconds, and the median ratio within a repetition."""
    arms: dict[str, Callable[[], Any]] = {
        "forward": lambda: forward(network, batch),
        "read": lambda: read(network, batch, answers=ANSWERS, batch_tokens=BATCH_TOKENS),
    }
    if isinstance(network, HuggingFaceNetwork):
        arms["hidden_states"] = lambda: hidden_states(network, batch)
    for arm in arms.values():
        arm()
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for repetition in range(repetitions):
        order = list(arms) if repetition % 2 else list(arms)[::-1]
        for name_of_arm in order:
            start = time.process_time()
            arms[name_of_arm]()
            seconds[name_of_arm].append(time.process_time() - start)
    return [
        {
            "model": name,
            "arm": arm,
            "seconds": statistics.median(spent),
            "ratio": statistics.median(
                a / b for a, b in zip(spent, seconds["forward"], strict=True)
            ),
            "repetitions": repetitions,
        }
        for arm, spent in seconds.items()
    ]


def chunks(network: Any, batch: Batch) -> list[torch.Tensor]:
    """Return prompts ``(member, n, t - 1)``, batched as `read` does."""
    prompts = torch.from_numpy(batch.inputs[:, :-1])
    size = max(1, BATCH_TOKENS // (prompts.shape[1] * network.members))
    return [part.expand(network.members, -1, -1) for part in torch.split(prompts, size)]


@torch.no_grad()
def forward(network: Any, batch: Batch) -> np.ndarray[Any, Any]:
    """Return log-probabilities of the answers, and nothing else."""
    last = torch.tensor([batch.inputs.shape[1] - 2])
    says = [
        network(part, columns=last)[:, :, 0, ANSWERS].float().log_softmax(-1).numpy()
        for part in chunks(network, batch)
    ]
    return np.concatenate(says, axis=1)


@torch.no_grad()
def hidden_states(network: HuggingFaceNetwork, batch: Batch) -> Any:
    """Return the same log-probabilities and `transformers`' own hidden states at the position."""
    says, states = [], []
    for part in chunks(network, batch):
        output = network.model(
            input_ids=part[0], output_hidden_states=True, use_cache=False, logits_to_keep=1
        )
        says.append(output.logits[:, 0, ANSWERS].float().log_softmax(-1).numpy())
        states.append([h[:, -1].float().numpy().copy() for h in output.hidden_states[1:]])
    return np.concatenate(says), [np.concatenate(layer) for layer in zip(*states, strict=True)]
