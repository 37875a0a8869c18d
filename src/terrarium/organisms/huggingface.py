"""Any Hugging Face causal language model in a folder, as a fleet of one.

Low-rank adapters: Hu et al. 2021 (arXiv 2106.09685), section 4.1, through `peft`.
"""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from terrarium.errors import InputError, ModelError
from terrarium.organisms import anatomy
from terrarium.organisms.folder import brief, check_folder, load_tokenizer
from terrarium.organisms.network import Site
from terrarium.organisms.offline import import_offline, quiet
from terrarium.organisms.recipe import LoRA
from terrarium.randomness import seed


class OneMember(nn.Module):
    """A fleet of one around a module ``model`` that holds all its weights.

    Parameters are named as in that module.
    """

    members = 1

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def named_parameters(self, *args: Any, **options: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Return the parameters under the names that the module gives them."""
        return self.model.named_parameters(*args, **options)

    def member_parameters(self, member: int, frozen: Sequence[str] = ()) -> list[nn.Parameter]:
        """Return the trainable parameters (the adapters alone, where there are any).

        ``frozen`` are prefixes of names that are left out.
        """
        only_member(member)
        return [
            parameter
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and not name.startswith(tuple(frozen))
        ]

    def member_state(self, member: int) -> dict[str, Tensor]:
        """Return copies of all tensors, adapters included."""
        only_member(member)
        return {name: t.detach().clone() for name, t in self.model.state_dict().items()}

    def load_member_state(self, member: int, state: Mapping[str, Tensor]) -> None:
        """Put back what `member_state` returned; raises ``ModelError`` if the names differ."""
        only_member(member)
        try:
            self.model.load_state_dict(dict(state), strict=True)
        except RuntimeError as error:
            raise ModelError(
                f"The stored tensors do not fit the model {self.name} ({brief(error)}); load "
                "them into the architecture (and adapters) they were taken from."
            ) from None

    def keep(self, members: Sequence[int]) -> None:
        """Keep the chosen members in place: there is one, so ``[0]`` is the only choice."""
        if list(members) != [0]:
            raise ValueError(f"a fleet of one has member 0 alone, got {list(members)}")

    def select(self, members: Sequence[int]) -> Self:
        """Return a copy."""
        self.keep(members)
        return copy.deepcopy(self)

    def to_device(self, device: torch.device | str) -> Self:
        """Move all weights; returns itself."""
        self.model.to(device)
        return self


class HuggingFaceNetwork(OneMember):
    """A fleet of one around a `transformers` causal LM.

    ``network(tokens)`` takes int64 ``(1, n, t)`` and gives logits ``(1, n, t, vocabulary)`` in
    the model's dtype.  Attention is causal: padding on the right changes nothing to its left, so
    no mask is needed unless positions in the padding are looked at.

    Attributes
    ----------
    model:
        The `transformers` model; parameters are named as in it.
    tokenizer:
        Its tokenizer, or None.
    name:
        The folder's name.
    adapters:
        The `peft` wrapper while `add_lora` is in force, else None.
    """

    def __init__(self, model: nn.Module, tokenizer: Any = None, name: str = "") -> None:
        super().__init__(model, name)
        self.tokenizer = tokenizer
        # in a tuple, or nn.Module would count the model's parameters twice
        self._adapters: tuple[Any, frozenset[str]] | None = None
        forward = inspect.signature(model.forward).parameters
        self._slices_logits = "logits_to_keep" in forward

    @property
    def adapters(self) -> Any:
        """The `peft` model while adapters are in place, else None."""
        return None if self._adapters is None else self._adapters[0]

    @property
    def device(self) -> torch.device:
        """Where tokens go in."""
        table: Tensor = self.model.get_input_embeddings().weight  # type: ignore[operator]
        return table.device

    @property
    def vocabulary(self) -> int:
        """Number of tokens that the embedding knows."""
        return int(self.model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]

    @property
    def context(self) -> int | None:
        """Longest sequence that the model was made for, tokens; None if it says nothing."""
        config: Any = self.model.config
        longest = getattr(config.get_text_config(), "max_position_embeddings", None)
        return int(longest) if isinstance(longest, int) and longest > 0 else None

    def forward(
        self,
        inputs: Tensor,
        exits: Sequence[int] = (),
        columns: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Any:
        """Return logits ``(1, n, t, vocabulary)``, and with ``exits`` also those read there.

        Parameters
        ----------
        inputs:
            Tokens ``(1, n, t)`` int64.
        exits:
            Numbers of blocks after which logits are read too, through the final norm and head;
            the result is then ``(logits, {blocks: logits})``.
        columns:
            ``(c,)`` int64 positions; only their logits are computed, ``(1, n, c, vocabulary)``.
        lengths:
            ``(n,)`` or ``(1, n)`` numbers of real tokens; masks the padding behind them.
        """
        if inputs.dim() != 3 or inputs.shape[0] != 1:
            raise ValueError(f"one network takes tokens (1, n, t), got {tuple(inputs.shape)}")
        tokens = inputs[0].to(self.device)
        options: dict[str, Any] = {"use_cache": False, "return_dict": True}
        if lengths is not None:
            at = torch.arange(tokens.shape[1], device=tokens.device)
            real = at < lengths.reshape(-1, 1).to(tokens.device)
            options["attention_mask"] = real.long()
        if columns is not None and self._slices_logits:
            options["logits_to_keep"] = columns.to(tokens.device)
        with _blocks_kept(self.model, exits) as kept:
            logits = self.model(input_ids=tokens, **options).logits[None]
        if columns is not None and not self._slices_logits:
            logits = _columns(logits, columns)
        if not exits:
            return logits
        early = {k: anatomy.unembed(self.model, _columns(x, columns)) for k, x in kept.items()}
        return logits, early

    def sites(self) -> Mapping[str, Site]:
        """Return the named sites; see `terrarium.organisms.anatomy`."""
        return anatomy.find_sites(self.model)

    def untrained(self) -> HuggingFaceNetwork:
        """Return the same architecture with first weights, as `transformers` draws them.

        They come from torch's global generator, which the caller seeds.
        """
        config: Any = copy.deepcopy(self.model.config)
        transformers = import_offline("transformers")
        with quiet():
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=self.model.dtype)
        fresh = HuggingFaceNetwork(model.to(self.device), self.tokenizer, f"{self.name}.untrained")
        return fresh.eval()

    def add_lora(self, spec: LoRA, keys: Sequence[tuple[str | int, ...]] = (("lora",),)) -> None:
        """Put low-rank adapters beside the target matrices and freeze everything else.

        No targets means every linear layer but the head.  The first weights depend on ``keys[0]``
        alone, and adapters change no logits before they are trained.
        """
        if self._adapters is not None:
            raise ValueError("adapters are in place already; merge them first")
        peft = import_offline("peft")
        trained = frozenset(n for n, p in self.named_parameters() if p.requires_grad)
        config = peft.LoraConfig(
            r=spec.rank,
            lora_alpha=spec.alpha,
            target_modules=list(spec.targets) or "all-linear",
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
        )
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed("lora", *keys[0]))
            try:
                self._adapters = (peft.get_peft_model(self.model, config), trained)
            except ValueError as error:
                raise InputError(
                    f"LoRA targets {list(spec.targets)} cannot be adapted ({brief(error)}); "
                    f"name linear layers of the model, such as {_linear_names(self.model)}."
                ) from None

    def merge_lora(self) -> None:
        """Add the adapters to the weights and drop them; training goes on with all weights."""
        if self._adapters is None:
            return
        adapters, trained = self._adapters
        with quiet():
            self.model = adapters.merge_and_unload()
        self._adapters = None
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in trained)
            parameter.grad = None

    def save(self, member: int, folder: Path, tokenizer_json: str | None = None) -> None:
        """Write config, safetensors and tokenizer; adapters are merged in what is written.

        ``tokenizer_json`` (as `tokenizers` writes it) stands in for the model's own tokenizer.
        """
        only_member(member)
        if self._adapters is not None:
            merged = copy.deepcopy(self)
            merged.merge_lora()
            merged.save(0, folder, tokenizer_json)
            return
        tokenizer = self.tokenizer
        if tokenizer_json is not None:
            fast = import_offline("tokenizers").Tokenizer.from_str(tokenizer_json)
            tokenizer = import_offline("transformers").PreTrainedTokenizerFast(
                tokenizer_object=fast
            )
        with quiet():
            self.model.save_pretrained(folder)  # type: ignore[operator]
            if tokenizer is not None:
                tokenizer.save_pretrained(folder)


def load_folder(
    folder: str | Path,
    dtype: str = "float32",
    device_map: str | None = None,
    trainable: bool = True,
    needs_tokenizer: bool = True,
) -> HuggingFaceNetwork:
    """Load a causal LM folder (config, weights, tokenizer), in evaluation mode.

    Parameters
    ----------
    folder:
        Where config, weights and tokenizer lie.
    dtype:
        ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"auto"`` (as stored).
    device_map:
        Handed to `accelerate` (``"auto"`` spreads a large model); None leaves it on the CPU.
    trainable:
        Whether parameters ask for gradients.
    needs_tokenizer:
        Refuse a folder without tokenizer.

    Raises ``ModelError`` with one sentence for whatever cannot be loaded or measured: no folder,
    config or weights, truncated files, unsafe pickles, foreign code, another kind of model,
    missing or non-finite weights, a tokenizer that does not fit.
    """
    folder = Path(folder).expanduser()
    check_folder(folder)
    if dtype not in {"float32", "bfloat16", "float16", "auto"}:
        raise InputError(f"dtype '{dtype}' is unknown; use float32, bfloat16, float16 or auto.")
    tokenizer = load_tokenizer(folder) if needs_tokenizer or _has_tokenizer(folder) else None
    model = _load_model(folder, dtype, device_map)
    network = HuggingFaceNetwork(model, tokenizer, folder.resolve().name)
    _check_values(folder, network)
    # Special tokens that were added without an embedding do no harm as long as no text has them.
    known = 0 if tokenizer is None else int(tokenizer.vocab_size)
    if known > network.vocabulary:
        raise ModelError(
            f"{folder}: the tokenizer knows {known} tokens and the embedding only "
            f"{network.vocabulary}; use the tokenizer that the model was trained with."
        )
    network.requires_grad_(trainable)
    return network.eval()


def _load_model(folder: Path, dtype: str, device_map: str | None) -> Any:
    transformers = import_offline("transformers")
    try:
        with quiet():
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                device_map=device_map,
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
            )
    except pickle.UnpicklingError:
        raise ModelError(
            f"{folder} holds a pickle that would run code when loaded; convert the weights to "
            "safetensors where you trust them."
        ) from None
    except torch.OutOfMemoryError:
        raise ModelError(
            f"{folder} does not fit in the device's memory; use dtype bfloat16 or device_map auto."
        ) from None
    except Exception as error:  # every architecture fails in its own way
        raise ModelError(
            f"The model in {folder} cannot be loaded ({brief(error)}); "
            "check that config.json and the weights belong together."
        ) from error
    if missing := sorted(info["missing_keys"]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f"{folder}: the weights lack '{missing[0]}'{more}, which would be drawn at random; "
            "copy the whole model."
        )
    for name, held, expected in info["mismatched_keys"]:
        raise ModelError(
            f"{folder}: '{name}' is {tuple(held)} and config.json asks for {tuple(expected)}; "
            "use the config that belongs to the weights."
        )
    return model


def _check_values(folder: Path, network: HuggingFaceNetwork) -> None:
    for name, parameter in network.named_parameters():
        if parameter.device.type != "meta" and not bool(torch.isfinite(parameter).all()):
            raise ModelError(
                f"{folder}: the parameter '{name}' holds NaN or infinity, so nothing can be "
                "measured; use another checkpoint (or a wider dtype if it overflowed)."
            )


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").exists()


def _linear_names(model: nn.Module) -> str:
    kinds = {"Linear", "Conv1D"}
    names = {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if type(m).__name__ in kinds}
    return ", ".join(sorted(names))


def only_member(member: int) -> None:
    """Raise ``ValueError`` for any member but 0."""
    if member != 0:
        raise ValueError(f"a fleet of one has member 0 alone, got {member}")


def _columns(x: Tensor, columns: Tensor | None) -> Tensor:
    return x if columns is None else x.index_select(2, columns.to(x.device))


@contextmanager
def _blocks_kept(model: nn.Module, exits: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Keep the outputs of the blocks at ``exits`` (1 = after the first) during a forward pass."""
    kept: dict[int, Tensor] = {}
    with ExitStack() as hooks:
        blocks = anatomy.find_blocks(model) if exits else nn.ModuleList()
        for number in exits:
            if not 1 <= number <= len(blocks):
                raise InputError(
                    f"There is no early exit after block {number}; the model has {len(blocks)}."
                )

            def keep(_m: Any, _i: Any, output: Any, number: int = number) -> None:
                kept[number] = (output if isinstance(output, Tensor) else output[0])[None]

            hooks.callback(blocks[number - 1].register_forward_hook(keep).remove)
        yield kept
