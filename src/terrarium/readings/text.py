"""Texts to a batch in the tokens of a Hugging Face tokenizer, through a template or a chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError, ModelError
from terrarium.worlds.base import Batch

TEMPLATE = "Is this statement true or false?\nStatement: {statement}\nAnswer:"
"""What a base model is asked by default."""

CHAT_TEMPLATE = "Is this statement true or false? Answer with one word.\nStatement: {statement}"
"""What the user says to a chat model by default."""

_UNBOUNDED = 10**9
"""Tokenizers without a longest text say an enormous number."""


@dataclass(frozen=True)
class Encoded:
    """Texts as a batch.

    Attributes
    ----------
    batch:
        Spans ``"statement"`` and ``"answer"`` (one token).
    answers:
        ``(k,)`` token ids, one for each answer: what `read` takes as ``answers``.
    notes:
        ``"truncated"`` (how many statements were cut) and ``"truncated_rows"``, ``"chat"``
        (whether the chat template was used), ``"answer_tokens"`` (each answer as it was split),
        ``"answer_prefix"`` (tokens that all answers share; they stand before the answer's slot).
    """

    batch: Batch
    answers: tuple[int, ...]
    notes: Mapping[str, Any]


def encode_statements(
    texts: Sequence[str],
    tokenizer: Any,
    facts: Mapping[str, NDArray[Any]] | None = None,
    *,
    labels: NDArray[Any] | None = None,
    template: str | None = None,
    answers: Sequence[str] = (" True", " False"),
    chat: bool | Literal["auto"] = "auto",
    max_tokens: int | None = None,
) -> Encoded:
    """Put each text into the template, add an answer, and encode.

    Parameters
    ----------
    texts, facts:
        Statements, and their labels ``(n,)`` each (carried along).
    tokenizer:
        A fast `transformers` tokenizer.
    labels:
        ``(n,)`` index of the answer that is written into the answer's slot, and the target there
        (for contrast pairs: all 0, then all 1).  None writes the first answer and sets no target;
        being causal, what is read before the slot is the same.
    template:
        Holds ``{statement}`` once; what the user says where a chat template is used.
    answers:
        Where they share their first tokens, these go before the slot and the first token that
        differs stands for the answer.
    chat:
        Use the tokenizer's chat template; ``"auto"``: if it has one.
    max_tokens:
        Longest example; the tokenizer's own limit if None.  Longer ones lose the end of their
        *statement*, never the question, and are counted in the notes.

    Raises ``InputError`` for empty texts, a template without its place, answers that no token
    tells apart and statements that cannot be cut enough; ``ModelError`` for tokenizers without
    character offsets or chat template.
    """
    _check_texts(texts)
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            "The tokenizer has no character offsets, so statements cannot be found in their "
            "tokens; save a fast one (tokenizer.json)."
        )
    uses_chat = _uses_chat(tokenizer, chat)
    form = template or (CHAT_TEMPLATE if uses_chat else TEMPLATE)
    if form.count("{statement}") != 1:
        raise InputError(f"The template {form!r} must hold {{statement}} exactly once.")
    ask = _Asker(tokenizer, form, uses_chat)
    written = [a.strip() for a in answers] if uses_chat else list(answers)
    ids, prefix, split = _answer_tokens(ask, texts[0], written)
    rows, spans, cut = _rows(ask, texts, prefix, _limit(tokenizer, max_tokens))
    notes = {
        "truncated": len(cut),
        "truncated_rows": cut,
        "chat": uses_chat,
        "answer_tokens": split,
        "answer_prefix": prefix,
    }
    batch = _batch(rows, spans, ids, _checked_labels(labels, len(texts), len(ids)), facts or {})
    return Encoded(batch, ids, notes)


def _rows(
    ask: _Asker, texts: Sequence[str], prefix: list[int], limit: int
) -> tuple[list[list[int]], list[tuple[int, int]], list[int]]:
    """Return prompts as tokens, the statements' spans, and the rows whose statement was cut."""
    rows, spans, cut = [], [], []
    for row, text in enumerate(texts):
        tokens, (start, stop) = ask(text)
        needed = len(tokens) + len(prefix) + 1  # one for the answer
        if needed > limit:
            kept = stop - (needed - limit)
            if kept <= start:
                raise InputError(
                    f"Row {row} needs {needed} tokens, the limit is {limit} and its statement "
                    "cannot be cut that much; shorten the template or raise max_tokens."
                )
            tokens, stop = tokens[:kept] + tokens[stop:], kept
            cut.append(row)
        rows.append(tokens + prefix)
        spans.append((start, stop))
    return rows, spans, cut


class _Asker:
    """Turns a statement into prompt tokens and the statement's token span."""

    def __init__(self, tokenizer: Any, form: str, chat: bool) -> None:
        self.tokenizer, self.chat = tokenizer, chat
        self.before, self.after = form.split("{statement}")

    def text(self, statement: str) -> tuple[str, int, int]:
        """Return the prompt as text, and the statement's characters ``[start, stop)`` in it."""
        content = f"{self.before}{statement}{self.after}"
        stop = len(self.before) + len(statement)
        if not self.chat:
            return content, len(self.before), stop
        said = [{"role": "user", "content": content}]
        prompt: str = self.tokenizer.apply_chat_template(
            said, tokenize=False, add_generation_prompt=True
        )
        # templates may trim what the user says
        lead = len(content) - len(content.lstrip())
        at = prompt.rfind(content.strip())
        if at < 0:
            raise ModelError(
                "The chat template changes what the user says, so the statement cannot be found; "
                "use chat=False."
            )
        first, end = max(0, len(self.before) - lead), min(stop - lead, len(content.strip()))
        return prompt, at + first, at + end

    def encode(self, text: str) -> Any:
        """Encode; a chat template has written its special tokens already."""
        return self.tokenizer(
            text, add_special_tokens=not self.chat, return_offsets_mapping=True, truncation=False
        )

    def __call__(self, statement: str) -> tuple[list[int], tuple[int, int]]:
        """Return token ids and ``[start, stop)`` of the statement."""
        text, start, stop = self.text(statement)
        encoded = self.encode(text)
        inside = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if a < stop and b > start]
        tokens = _without_end(list(encoded["input_ids"]), self.tokenizer)
        if not inside:
            raise InputError(f"The statement {statement!r} has no tokens; leave it out.")
        return tokens, (inside[0], inside[-1] + 1)


def _without_end(tokens: list[int], tokenizer: Any) -> list[int]:
    """Drop an end-of-text token that the tokenizer puts behind every text: the answer follows."""
    end = tokenizer.eos_token_id
    if len(tokens) > 1 and end is not None and tokens[-1] == end:
        return tokens[:-1]
    return tokens


def _answer_tokens(
    ask: _Asker, statement: str, answers: Sequence[str]
) -> tuple[tuple[int, ...], list[int], list[list[int]]]:
    """Return the token of each answer, the tokens they share before it, and all their tokens."""
    if len(answers) < 2:
        raise InputError(f"At least two answers are needed, got {list(answers)}.")
    split = [_continuation(ask, statement, answer) for answer in answers]
    shared = 0
    shortest = min(len(tokens) for tokens in split)
    while shared < shortest and len({tokens[shared] for tokens in split}) == 1:
        shared += 1
    if shared == shortest or len({tokens[shared] for tokens in split}) < len(split):
        raise InputError(
            f"No single token tells the answers {list(answers)} apart (their tokens are {split}); "
            "choose answers whose first words differ."
        )
    return tuple(tokens[shared] for tokens in split), split[0][:shared], split


def _continuation(ask: _Asker, statement: str, answer: str) -> list[int]:
    """Return the answer's tokens as they follow the prompt, else as they are alone."""
    text, _, _ = ask.text(statement)
    prompt = _without_end(list(ask.encode(text)["input_ids"]), ask.tokenizer)
    both = _without_end(list(ask.encode(text + answer)["input_ids"]), ask.tokenizer)
    if both[: len(prompt)] == prompt and len(both) > len(prompt):
        return both[len(prompt) :]
    alone: list[int] = ask.tokenizer(answer, add_special_tokens=False)["input_ids"]
    if not alone:
        raise InputError(f"The answer {answer!r} has no tokens; choose another.")
    return list(alone)


def _uses_chat(tokenizer: Any, chat: bool | Literal["auto"]) -> bool:
    has = bool(getattr(tokenizer, "chat_template", None))
    if chat is True and not has:
        raise ModelError("The tokenizer has no chat template; use chat=False or an -instruct one.")
    return has if chat == "auto" else bool(chat)


def _limit(tokenizer: Any, max_tokens: int | None) -> int:
    if max_tokens is not None:
        if max_tokens < 2:
            raise InputError(f"max_tokens is {max_tokens}; give at least 2.")
        return max_tokens
    own = getattr(tokenizer, "model_max_length", None)
    return int(own) if own and own < _UNBOUNDED else _UNBOUNDED


def _check_texts(texts: Sequence[str]) -> None:
    if not len(texts):
        raise InputError("There are no texts; give at least one.")
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"Row {row} is {text!r}; expected a text that is not empty.")


def _checked_labels(labels: NDArray[Any] | None, n: int, k: int) -> NDArray[np.int64] | None:
    if labels is None:
        return None
    found = np.asarray(labels)
    whole = found.dtype.kind in "iub"
    if found.shape != (n,) or not whole or not ((found >= 0) & (found < k)).all():
        raise InputError(
            f"Labels must be {n} integers from 0 to {k - 1} (which answer is right), got "
            f"{found.dtype} of shape {found.shape}."
        )
    return found.astype(np.int64)


def _batch(
    rows: list[list[int]],
    spans: list[tuple[int, int]],
    ids: tuple[int, ...],
    labels: NDArray[np.int64] | None,
    facts: Mapping[str, NDArray[Any]],
) -> Batch:
    """Pad prompts on the right, each with its answer behind it."""
    for name, fact in facts.items():
        if len(fact) != len(rows):
            raise InputError(f"The fact '{name}' has {len(fact)} rows and there are {len(rows)}.")
    n = len(rows)
    prompt = np.array([len(tokens) for tokens in rows], np.int64)
    inputs = np.zeros((n, int(prompt.max()) + 1), np.int64)
    targets = np.full(inputs.shape, -100, np.int64)
    for row, tokens in enumerate(rows):
        inputs[row, : len(tokens)] = tokens
    answer = np.asarray(ids)[np.zeros(n, np.int64) if labels is None else labels]
    inputs[np.arange(n), prompt] = answer
    if labels is not None:
        targets[np.arange(n), prompt - 1] = answer
    placed = {
        "statement": np.array(spans, np.int64),
        "answer": np.stack([prompt, prompt + 1], axis=1),
    }
    return Batch(inputs, targets, dict(facts), placed, prompt + 1)
