import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file as save_torch

from terrarium.errors import InputError
from terrarium.readings.reading import Reading
from terrarium.readings.stored import load_activations, load_facts, load_reading, save_reading

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
TRUTH = np.array([1, 0, 1, 1, 0, 0], bool)


def reading():
    values = np.arange(48, dtype=np.float32).reshape(2, 3, 2, 4)
    return Reading(
        {"resid.post[0]": values, "mlp/act: x": -values},
        ("member", "n", "position", "channel"),
        {"truth": np.array([True, False, True]), "name": np.array(["a", "bé", "c"], object)},
        ("prompt_end", "last"),
        -np.ones((2, 3, 2), np.float32),
        "mine",
        {"answer_mass": np.array([0.5, 0.25])},
    )


def test_a_reading_comes_back_as_it_was(tmp_path):
    one = reading()
    save_reading(one, tmp_path / "r")
    two = load_reading(tmp_path / "r")
    assert two.sites == one.sites
    for site in one.sites:
        np.testing.assert_array_equal(two.activations[site], one.activations[site])
        assert isinstance(two.activations[site], np.memmap)
    np.testing.assert_array_equal(two.says, one.says)
    assert (two.axes, two.positions, two.model) == (one.axes, one.positions, one.model)
    assert two.facts["name"].tolist() == ["a", "bé", "c"]
    assert two.facts["truth"].dtype == bool
    assert two.notes == {"answer_mass": [0.5, 0.25]}
    save_reading(two, tmp_path / "again")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "r"]


def test_saving_is_whole_or_not_at_all(tmp_path):
    one = reading()
    mixed = replace(one, facts={"name": np.array(["a", 1, None], object)})
    with pytest.raises(InputError, match="'name' mixes"):
        save_reading(mixed, tmp_path / "r")
    odd = replace(one, notes={"x": object()})
    with pytest.raises(InputError, match="notes"):
        save_reading(odd, tmp_path / "r")
    assert list(tmp_path.iterdir()) == []
    save_reading(one, tmp_path / "r")
    with pytest.raises(InputError, match="holds something already"):
        save_reading(one, tmp_path / "r")


def test_damaged_folders_are_noticed(tmp_path):
    with pytest.raises(InputError, match="no reading"):
        load_reading(tmp_path)
    save_reading(reading(), tmp_path / "r")
    described = json.loads((tmp_path / "r" / "reading.json").read_text())
    array = tmp_path / "r" / described["arrays"]["resid.post[0]"]
    whole = array.read_bytes()
    for data in (whole[:-8], b"", b"nonsense"):
        array.write_bytes(data)
        with pytest.raises(InputError, match="damaged"):
            load_reading(tmp_path / "r")
    np.save(array, np.zeros((1, 2), np.float32))
    with pytest.raises(InputError, match="should be"):
        load_reading(tmp_path / "r")
    array.unlink()
    with pytest.raises(InputError, match="damaged"):
        load_reading(tmp_path / "r")
    (tmp_path / "r" / "reading.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="format"):
        load_reading(tmp_path / "r")


def check(found, site="a"):
    np.testing.assert_allclose(found.at(site)[0], X, rtol=1e-2)
    assert found.activations[site].dtype == np.float32
    assert found.facts["truth"].tolist() == TRUTH.tolist()
    assert found.axes == ("member", "n", "channel")
    assert found.says is None


def test_npz_safetensors_parquet_and_npy_enter_alike(tmp_path):
    np.savez(tmp_path / "x.npz", a=X.astype(np.float64), truth=TRUTH)
    check(load_activations(tmp_path / "x.npz"))
    tensors = {"a": torch.from_numpy(X).bfloat16(), "truth": torch.from_numpy(TRUTH)}
    save_torch(tensors, tmp_path / "x.safetensors")
    check(load_activations(tmp_path / "x.safetensors"))
    pd.DataFrame({"a": list(X), "truth": TRUTH}).to_parquet(tmp_path / "x.parquet")
    check(load_activations(tmp_path / "x.parquet"))
    np.save(tmp_path / "x.npy", X)
    pd.DataFrame({"truth": TRUTH}).to_csv(tmp_path / "x.csv", index=False)
    check(load_activations(tmp_path / "x.npy", site="a"))
    pd.DataFrame({"truth": TRUTH}).to_csv(tmp_path / "y.tsv", index=False, sep="\t")
    check(load_activations(tmp_path / "x.npy", facts=tmp_path / "y.tsv", site="a"))
    (tmp_path / "y.jsonl").write_text("".join(f'{{"truth": {int(t)}}}\n' for t in TRUTH))
    assert load_facts(tmp_path / "y.jsonl")["truth"].tolist() == TRUTH.tolist()


def test_positions_and_members(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros((6, 3, 4)), b=np.ones((6, 3, 9)))
    found = load_activations(tmp_path / "x.npz", facts={"truth": TRUTH})
    assert found.activations["b"].shape == (1, 6, 3, 9)
    assert found.positions == ("0", "1", "2")
    np.save(tmp_path / "y.npy", np.zeros((2, 6, 1, 4), np.float32))
    assert load_activations(tmp_path / "y.npy").members == 2


def refused(path, match, **options):
    with pytest.raises(InputError, match=match) as caught:
        load_activations(path, **options)
    assert "\n" not in str(caught.value)


def test_refusals(tmp_path):
    path = tmp_path / "x.npz"
    refused(path, "no file")
    torch.save({"a": torch.zeros(2, 2)}, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", "convert pickled")
    path.write_bytes(b"PK nonsense")
    refused(path, "cannot be read as .npz")
    np.savez(path, a=np.array([[object()] * 2] * 2, object))
    refused(path, "cannot be read as .npz")
    np.savez(path, truth=TRUTH)
    refused(path, "holds no array of shape")
    np.savez(path, a=X, b=X[:5])
    refused(path, "rows differ")
    np.savez(path, a=X, b=X[:, None])
    refused(path, "all sites must be")
    np.savez(path, a=X, truth=TRUTH[:5])
    refused(path, "'truth' has 5 rows and .* 6 examples")
    np.savez(path, a=X.astype(complex))
    refused(path, "real numbers")
    np.savez(path, a=X[:0])
    refused(path, "empty")
    bad = X.copy()
    bad[4, 1] = np.nan
    np.savez(path, a=bad)
    refused(path, "first in row 4")
    np.savez(path, a=X)
    refused(path, "no table", facts=tmp_path / "x.xlsx")
    refused(path, "no file", facts=tmp_path / "gone.csv")
    (tmp_path / "e.csv").write_text("")
    refused(path, "cannot be read as a table", facts=tmp_path / "e.csv")
    pd.DataFrame({"a": [[1.0], [1.0, 2.0]]}).to_parquet(tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", "1 to 2 long")
    (tmp_path / "x.safetensors").write_bytes(b"12")
    refused(tmp_path / "x.safetensors", "cannot be read as .safetensors")
