import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.readings.positions import MISSING, resolve
from terrarium.worlds.base import Batch


def test_names_point_where_they_say(batch):
    labels, where = resolve(batch, ("prompt_end", "answer", "last", "first:answer"))
    assert labels == ("prompt_end", "answer", "last", "first:answer")
    end = batch.lengths
    np.testing.assert_array_equal(where, np.stack([end - 2, end - 1, end - 1, end - 1], axis=1))
    some = batch.take(np.array([1, 3, 4]))
    _, where = resolve(some, ("first:name", "last:name", "before:name"))
    np.testing.assert_array_equal(where, [[3, 4, 2], [2, 2, 1], [4, 7, 3]])


def test_all_spells_out_every_position(batch):
    labels, where = resolve(batch, "all")
    assert labels == tuple("012345678")
    for row, length in enumerate(batch.lengths):
        expected = np.where(np.arange(9) < length, np.arange(9), MISSING)
        np.testing.assert_array_equal(where[row], expected)


def test_without_lengths_all_tokens_are_real():
    batch = Batch(np.zeros((2, 4), np.int64), np.zeros((2, 4), np.int64), {})
    np.testing.assert_array_equal(resolve(batch, ("last",))[1], [[3], [3]])


def test_examples_that_lack_a_position(batch):
    with pytest.raises(InputError, match=r"1 of 5 examples have no token there .* row 2"):
        resolve(batch, ("last:name",))
    with pytest.raises(InputError, match=r"2 of 5 .* nothing before it.* row 0"):
        resolve(batch, ("before:name",))
    _, where = resolve(batch, ("before:name",), allow_missing=True)
    np.testing.assert_array_equal(where[:, 0], [MISSING, 2, MISSING, 1, 3])


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (("last:nam",), "needs the span 'nam'; did you mean 'name'"),
        (("prompt_ende",), "no position 'prompt_ende'; did you mean 'prompt_end'"),
        (("middle:name",), "no position 'middle:name'"),
        (("last:",), "no position 'last:'"),
        ((), "No position is named"),
        (("last", "last"), "must differ"),
    ],
)
def test_unknown_names_get_one_sentence(batch, names, match):
    with pytest.raises(InputError, match=match):
        resolve(batch, names)


def test_spans_beyond_the_length_and_inputs_without_positions(batch):
    far = Batch(batch.inputs, batch.targets, {}, {"answer": np.tile([6, 7], (5, 1))}, batch.lengths)
    with pytest.raises(InputError, match="row 0 is token 6, but the example has 5"):
        resolve(far, ("answer",))
    with pytest.raises(InputError, match="positions=None"):
        resolve(Batch(np.zeros((3, 2), np.float32), np.zeros((3, 1)), {}), ("last",))
