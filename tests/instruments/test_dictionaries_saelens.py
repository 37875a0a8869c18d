"""SAELens' files: those it wrote give the features it computes, and ours come back whole."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import terrarium as tm
from terrarium.errors import InputError, ModelError
from terrarium.instruments.check_dictionary import planted_features
from terrarium.instruments.dictionaries.decomposed import PCA
from terrarium.instruments.dictionaries.kinds import BatchTopK, Gated, JumpReLU, ReLU, TopK
from terrarium.instruments.dictionaries.saelens import CONFIG, WEIGHTS, load_saelens, save_saelens
from terrarium.instruments.dictionaries.train import Training

GOLDEN = Path(__file__).parent / "golden" / "saelens"
EXPECTED = np.load(GOLDEN / "expected.npz")
FOLDERS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
QUICK = Training(samples=3000, batch=100)


@pytest.mark.parametrize("folder", FOLDERS)
def test_golden_files_give_what_saelens_computes(folder):
    name, dictionary = folder.removesuffix("_training"), load_saelens(GOLDEN / folder)
    features = dictionary.encode(EXPECTED["x"])
    wanted = EXPECTED[f"{name}.features"]
    assert np.allclose(features, wanted, atol=1e-5)
    assert np.array_equal(features > 0, wanted > 0)
    assert np.allclose(dictionary.decode(features), EXPECTED[f"{name}.decoded"], atol=1e-5)
    assert 0 < (wanted > 0).mean() < 0.7


@pytest.mark.parametrize(
    "spec",
    [
        TopK(12, QUICK, active=3),
        BatchTopK(12, QUICK, active=3),
        JumpReLU(12, QUICK, target=3.0),
        Gated(12, QUICK),
        ReLU(12, QUICK),
    ],
    ids=lambda spec: spec.name,
)
def test_our_files_come_back_whole(spec, tmp_path):
    fitted = spec.fit(planted_features())
    tm.save_saelens(fitted, tmp_path / "saved", {"hook_name": "resid.post[1]"})
    again = tm.load_saelens(tmp_path / "saved")
    x = planted_features(seed=1)
    assert np.array_equal(again.encode(x), fitted.encode(x))
    assert np.array_equal(again.directions, fitted.directions)
    assert (again.architecture, again.active, again.name) == (
        fitted.architecture,
        fitted.active,
        fitted.name,
    )
    assert again.notes["hook_name"] == "resid.post[1]"
    with pytest.raises(InputError, match="already"):
        save_saelens(fitted, tmp_path / "saved")


def test_the_layout_is_that_of_saelens(tmp_path):
    """The same keys, shapes and settings as in the file that SAELens wrote of that kind."""
    from safetensors.numpy import load_file

    for name in ("standard", "topk", "jumprelu", "gated"):
        save_saelens(load_saelens(GOLDEN / name), tmp_path / name)
        ours, theirs = load_file(tmp_path / name / WEIGHTS), load_file(GOLDEN / name / WEIGHTS)
        assert set(ours) == set(theirs)
        for key, value in theirs.items():
            assert np.array_equal(ours[key], value)
        config = json.loads((tmp_path / name / CONFIG).read_text())
        judge = json.loads((GOLDEN / name / CONFIG).read_text())
        for key in judge:
            if key != "metadata":
                assert config[key] == judge[key]


def test_files_from_before_version_6(tmp_path):
    folder = shutil.copytree(GOLDEN / "topk", tmp_path / "old")
    config = json.loads((folder / CONFIG).read_text())
    del config["architecture"], config["k"], config["metadata"]
    config |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}}
    (folder / CONFIG).write_text(json.dumps(config))
    features = load_saelens(folder).encode(EXPECTED["x"])
    assert np.allclose(features, EXPECTED["topk.features"], atol=1e-5)


def test_older_files_name_their_activation_instead(tmp_path):
    folder = shutil.copytree(GOLDEN / "standard", tmp_path / "old")
    config = json.loads((folder / CONFIG).read_text())
    del config["architecture"]
    # finetuning's factors lie in older files even where the settings do not use them
    with_tensor(folder, "scaling_factor", np.full(config["d_sae"], 2, np.float32))
    (folder / CONFIG).write_text(json.dumps(config | {"activation_fn_str": "relu"}))
    features = load_saelens(folder).encode(EXPECTED["x"])
    assert np.allclose(features, EXPECTED["standard.features"], atol=1e-5)
    (folder / CONFIG).write_text(json.dumps(config | {"activation_fn_str": "tanh-relu"}))
    with pytest.raises(ModelError, match="'tanh-relu' is not read"):
        load_saelens(folder)


def with_tensor(folder, name, value):
    from safetensors.numpy import load_file, save_file

    save_file(load_file(folder / WEIGHTS) | {name: value}, folder / WEIGHTS)


@pytest.mark.parametrize("config", [{}, {"d_in": 6, "d_sae": 10}])
def test_settings_without_an_architecture_are_refused(config, tmp_path):
    folder = shutil.copytree(GOLDEN / "topk", tmp_path / "unnamed")
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ModelError, match="names no architecture; expected one of standard"):
        load_saelens(folder)


def test_tensors_that_would_be_dropped_are_refused(tmp_path):
    folder = shutil.copytree(GOLDEN / "topk", tmp_path / "more")
    with_tensor(folder, "W_skip", np.zeros((6, 6), np.float32))
    with pytest.raises(ModelError, match="holds W_skip"):
        load_saelens(folder)


@pytest.mark.parametrize("name", ["standard", "topk_rescaled"])
@pytest.mark.parametrize("rows", [[4], list(range(10))])
def test_directions_of_length_0_are_refused(name, rows, tmp_path):
    from safetensors.numpy import load_file

    folder = shutil.copytree(GOLDEN / name, tmp_path / "still")
    w_dec = load_file(folder / WEIGHTS)["W_dec"]
    w_dec[rows] = 0
    with_tensor(folder, "W_dec", w_dec)
    with pytest.raises(ModelError, match=f"{len(rows)} of 10 rows .* first is {rows[0]}"):
        load_saelens(folder)


def test_directions_keep_the_lengths_of_the_file_unless_it_says_otherwise():
    for name, length_1 in (("topk", False), ("topk_rescaled", True)):
        lengths = np.linalg.norm(load_saelens(GOLDEN / name).directions, axis=1)
        assert np.allclose(lengths, 1, atol=1e-5) == length_1


def edited(tmp_path, **change):
    folder = shutil.copytree(GOLDEN / "jumprelu", tmp_path / "spoilt")
    config = json.loads((folder / CONFIG).read_text()) | change
    (folder / CONFIG).write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"architecture": "jumprely"}, "did you mean 'jumprelu'"),
        ({"architecture": "gated"}, "lacks b_gate, r_mag, b_mag"),
        ({"normalize_activations": "layer_norm"}, "layer_norm"),
        ({"architecture": "topk"}, "holds threshold"),
        ({"architecture": "standard"}, "holds threshold, which a dictionary of the architecture"),
    ],
)
def test_settings_that_cannot_be_used_are_told(change, told, tmp_path):
    with pytest.raises(ModelError, match=told):
        load_saelens(edited(tmp_path, **change))


def test_topk_without_its_k_is_told(tmp_path):
    folder = shutil.copytree(GOLDEN / "topk", tmp_path / "without")
    config = json.loads((folder / CONFIG).read_text()) | {"k": None}
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ModelError, match="TopK: active is None"):
        load_saelens(folder)


def test_damaged_files_are_told(tmp_path):
    with pytest.raises(ModelError, match=CONFIG.replace(".", "[.]")):
        load_saelens(tmp_path)
    folder = edited(tmp_path)
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="damaged"):
        load_saelens(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=WEIGHTS):
        load_saelens(folder)
    (folder / CONFIG).write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        load_saelens(folder)


def test_wrong_shapes_and_nan_are_told(tmp_path):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(GOLDEN / "jumprelu" / WEIGHTS)
    for number, (name, value) in enumerate(
        [
            ("W_enc", tensors["W_enc"].T.copy()),
            ("threshold", tensors["threshold"][:3].copy()),
            ("b_dec", np.full_like(tensors["b_dec"], np.nan)),
        ]
    ):
        folder = tmp_path / str(number)
        shutil.copytree(GOLDEN / "jumprelu", folder)
        save_file(tensors | {name: value}, folder / WEIGHTS)
        with pytest.raises(ModelError, match=name):
            load_saelens(folder)


def test_what_has_no_place_in_the_format_is_refused(tmp_path):
    with pytest.raises(InputError, match="LinearDictionary"):
        save_saelens(PCA().fit(planted_features()), tmp_path / "pca")
    fitted = load_saelens(GOLDEN / "topk")
    with pytest.raises(InputError, match="JSON"):
        save_saelens(fitted, tmp_path / "meta", {"model": object()})
