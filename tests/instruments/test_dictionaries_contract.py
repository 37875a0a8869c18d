"""Every built-in dictionary passes the public suite, and the suite catches broken ones."""

from dataclasses import FrozenInstanceError, dataclass, replace

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

import terrarium as tm
from terrarium.errors import InputError
from terrarium.instruments.base import Dictionary, FittedDictionary, dictionaries
from terrarium.instruments.check_dictionary import CHECKS, check_dictionary, planted_features
from terrarium.instruments.dictionaries.decomposed import ICA, NMF, PCA
from terrarium.instruments.dictionaries.fitted import SparseDictionary
from terrarium.instruments.dictionaries.kinds import (
    BatchTopK,
    Gated,
    JumpReLU,
    Matryoshka,
    ReLU,
    TopK,
)
from terrarium.instruments.dictionaries.rows import site_rows
from terrarium.instruments.dictionaries.train import Training
from terrarium.readings.reading import IMAGE_AXES, SEQUENCE_AXES, Reading

QUICK = Training(samples=8_000, batch=80)
SMALL = {
    "topk": TopK(16, QUICK, active=3),
    "batch_topk": BatchTopK(16, QUICK, active=3),
    "matryoshka": Matryoshka(16, QUICK, active=3, nested=(6,)),
    "jump_relu": JumpReLU(16, QUICK, target=4.0, l0=0.1),
    "gated": Gated(16, QUICK, l1=0.1),
    "relu": ReLU(16, QUICK, l1=0.1),
    "pca": PCA(6),
    "ica": ICA(6),
    "nmf": NMF(6),
}


@pytest.mark.parametrize("name", [n for n in dictionaries.names() if "." not in n])
def test_built_in_dictionaries_pass(name):
    dictionary = SMALL[name]
    assert isinstance(dictionary, dictionaries.get(name))
    assert isinstance(dictionary, Dictionary)
    assert dictionary.name == name
    assert len(check_dictionary(dictionary)) == len(CHECKS)
    assert isinstance(dictionary.fit(planted_features()), FittedDictionary)


def test_variants_pass():
    check_dictionary(ReLU(16, QUICK, l1=0.1, directions="free"))


@dataclass(frozen=True)
class Sound:
    """Passes; broken ones change one thing."""

    def fit(self, x, progress=None):
        return self.wrap(PCA(6).fit(x))

    def wrap(self, fitted):
        return fitted


@dataclass(frozen=True)
class Wrapped:
    """A fitted dictionary that is asked in another way."""

    inner: object
    shift: bool = False
    scale: float = 1.0

    @property
    def k(self):
        return self.inner.k

    @property
    def d(self):
        return self.inner.d

    @property
    def directions(self):
        return self.inner.directions

    def encode(self, x):
        features = self.inner.encode(x)
        return features - features.mean(axis=tuple(range(features.ndim - 1))) * self.shift

    def decode(self, features):
        return self.inner.decode(np.asarray(features) * self.scale)


class BatchStatistic(Sound):
    def wrap(self, fitted):
        return Wrapped(fitted, shift=True)


class WrongScale(Sound):
    def wrap(self, fitted):
        return Wrapped(fitted, scale=1.5)


class Mutable(Sound):
    def wrap(self, fitted):
        class Open:
            def __init__(self, inner):
                self.__dict__.update(k=inner.k, d=inner.d, directions=inner.directions)
                self.encode, self.decode = inner.encode, inner.decode

        return Open(fitted)


class Wandering(Sound):
    def fit(self, x, progress=None):
        return TopK(16, QUICK, seed=int(np.random.default_rng().integers(1 << 30)), active=3).fit(x)


class Careless(Sound):
    def fit(self, x, progress=None):
        return PCA(6).fit(np.nan_to_num(x))


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (BatchStatistic(), "shapes"),
        (WrongScale(), "decoding_is_linear"),
        (Mutable(), "frozen"),
        (Wandering(), "deterministic"),
        (Careless(), "refuses_bad_input"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_suite_catches(broken, check):
    check_dictionary(Sound())
    with pytest.raises(AssertionError, match=check):
        check_dictionary(broken)


# --- encoding by the formulas -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["topk", "batch_topk", "jump_relu", "gated", "relu"])
def test_encoding_is_the_formula(name):
    fitted, x = SMALL[name].fit(planted_features()), planted_features(seed=1)
    z = (x - fitted.b_dec).astype(np.float64) @ fitted.w_enc.T.astype(np.float64)
    if fitted.architecture == "gated":
        gate = z + fitted.b_enc > 0
        wanted = gate * np.maximum(np.exp(fitted.r_mag) * z + fitted.b_mag, 0)
    else:
        wanted = np.maximum(z + fitted.b_enc, 0)
    if fitted.architecture == "topk":
        least = np.sort(wanted, axis=1)[:, -fitted.active, None]
        wanted = wanted * (wanted >= least)
    if fitted.architecture == "jumprelu":
        wanted = wanted * (wanted > fitted.threshold)
    features = fitted.encode(x)
    assert np.allclose(features, wanted, atol=1e-4)
    decoded = fitted.decode(features)
    assert np.allclose(decoded, features @ fitted.directions + fitted.b_dec, atol=1e-5)
    assert np.allclose(fitted.encode_sparse(x).toarray(), features)
    assert np.allclose(fitted.reconstruct(x), fitted.decode(features), atol=1e-5)
    assert np.allclose(fitted.decode(fitted.encode_sparse(x)), fitted.decode(features), atol=1e-5)
    assert np.allclose(np.linalg.norm(fitted.directions, axis=1), 1, atol=1e-5)
    assert np.allclose(fitted.encode(torch.from_numpy(x)), features)


@pytest.mark.parametrize("name", ["topk", "batch_topk", "jump_relu", "gated", "relu"])
def test_units_and_origin_of_the_activations_do_not_matter(name):
    x = planted_features()
    plain, moved = SMALL[name].fit(x), SMALL[name].fit(4 * x + 3)
    assert np.allclose(moved.directions, plain.directions, atol=2e-2)
    one, two = plain.encode(x), moved.encode(4 * x + 3) / 4
    assert np.mean(np.abs(one - two) > 0.05) < 0.01


def test_the_threshold_of_batch_topk_keeps_as_many_active():
    fitted = SMALL["batch_topk"].fit(planted_features())
    assert np.allclose(fitted.threshold, fitted.threshold[0], rtol=1e-5)
    assert (fitted.encode(planted_features(seed=1)) > 0).sum(1).mean() == pytest.approx(3, abs=0.4)


def test_nested_dictionaries_of_matryoshka_stand_alone():
    """The first latents alone reconstruct better than as many of a dictionary without nesting."""
    x, new = planted_features(4000), planted_features(seed=1)

    def by_first(fitted, m=6):
        features = fitted.encode(new)
        features[:, m:] = 0
        return float(np.square(new - fitted.decode(features)).sum())

    training = Training(samples=60_000, batch=256)
    nested = Matryoshka(16, training, active=3, nested=(6,)).fit(x)
    plain = BatchTopK(16, training, active=3).fit(x)
    assert by_first(nested) < 0.8 * by_first(plain)


def test_seeds_differ_and_history_is_kept():
    x = planted_features()
    one, two = TopK(16, QUICK, active=3).fit(x), TopK(16, QUICK, seed=1, active=3).fit(x)
    assert not np.allclose(one.directions, two.directions)
    assert one.history[-1]["samples"] == QUICK.steps * QUICK.batch
    assert one.history[-1]["fvu"] < one.history[0]["fvu"]


def test_memory_mapped_activations(tmp_path):
    x = planted_features()
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    fitted = TopK(16, QUICK, active=3).fit(mapped)
    left = np.square(x - fitted.reconstruct(x)).sum() / np.square(x - x.mean(0)).sum()
    assert left < 0.4


def test_nmf_on_activations_without_negative_values():
    x = np.maximum(planted_features(), 0)
    fitted = NMF(6).fit(x)
    assert fitted.parts.shape == (6, 8)
    features = fitted.encode(x)
    assert features.min() >= 0
    for row, found in zip(x[:20], features[:20], strict=True):
        best = nnls(fitted.parts.T.astype(float), row.astype(float))[1]
        assert np.linalg.norm(row - found @ fitted.parts) <= best + 1e-3
    with pytest.raises(InputError, match="both signs"):
        fitted.encode(-x)


def test_ica_finds_independent_sources():
    rng = np.random.default_rng(0)
    sources = rng.laplace(size=(4000, 4)).astype(np.float32)
    mixing = np.linalg.qr(rng.normal(size=(4, 4)))[0].astype(np.float32)
    fitted = ICA().fit(sources @ mixing)
    cosines = np.abs(fitted.directions @ mixing.T)
    assert cosines.max(0).min() > 0.97


# --- readings -----------------------------------------------------------------------------------


def test_rows_of_a_reading():
    values = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    values[1, 2, 3] = np.nan  # a position that the example does not have
    reading = Reading({"resid.post[0]": values}, SEQUENCE_AXES, {}, ("a", "b", "c", "d"))
    rows = site_rows(reading, "resid.post[0]", member=1)
    assert np.array_equal(rows, values[1].reshape(-1, 5)[:-1])
    only = site_rows(reading, "resid.post[0]", "b")
    assert np.array_equal(only, values[0, :, 1])
    for bad in ({"site": "resid.post[9]"}, {"site": "resid.post[0]", "member": 2}):
        with pytest.raises(InputError):
            site_rows(reading, **bad)


def test_maps_of_an_image_reading_stay_maps():
    pixels = planted_features(6 * 4 * 4).reshape(1, 6, 4, 4, 8)
    reading = Reading({"latent": pixels}, IMAGE_AXES, {})
    fitted = TopK(16, QUICK, active=3).fit(site_rows(reading, "latent"))
    maps = fitted.encode(reading.activations["latent"][0])
    assert maps.shape == (6, 4, 4, 16)
    assert np.allclose(maps.reshape(-1, 16), fitted.encode(pixels.reshape(-1, 8)))


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (TopK, {"features": 0}),
        (TopK, {"active": 0}),
        (TopK, {"features": 8, "active": 9}),
        (BatchTopK, {"auxiliary": -1.0}),
        (Matryoshka, {"features": 8, "active": 2, "nested": (6, 4)}),
        (JumpReLU, {"bandwidth": 0.0}),
        (JumpReLU, {"target": -1.0}),
        (Gated, {"l1": float("nan")}),
        (ReLU, {"directions": "long"}),
    ],
)
def test_bad_parameters_are_refused(kind, options):
    with pytest.raises(InputError, match="give"):
        kind(**options)


def test_wrong_weights_are_refused():
    w, b = np.zeros((3, 2), np.float32), np.zeros(3, np.float32)
    good = SparseDictionary("standard", w, b, w, np.zeros(2, np.float32))
    assert good.k == 3
    with pytest.raises(FrozenInstanceError):
        good.name = "x"
    for change in (
        {"architecture": "relu"},
        {"architecture": "topk"},
        {"architecture": "jumprelu"},
        {"b_enc": np.zeros(2, np.float32)},
        {"w_enc": np.full((3, 2), np.nan, np.float32)},
    ):
        with pytest.raises(InputError):
            replace(good, **change)


def test_public_names():
    assert tm.dictionaries is dictionaries
    assert tm.check_dictionary is check_dictionary
