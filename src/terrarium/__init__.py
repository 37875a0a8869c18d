"""terrarium: a laboratory for model organisms.

Small models grown in worlds whose exact right output is known, so that what a model says, what it
knows and what would be optimal can be compared.

The public nouns are here; each is imported when it is first used, so that ``import terrarium``
costs nothing::

    import terrarium as tm

    organism, twin = tm.grow([(recipe, 0), (recipe.twin(), 0)])
    batch = organism.world.sample(1000, tm.generator("mine"), "test")
    reading = tm.read(organism.network(), batch, "resid.post")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    # worlds: what is right
    "all_worlds": "terrarium.worlds.base:worlds",
    "Batch": "terrarium.worlds.base",
    "World": "terrarium.worlds.base",
    "Arithmetic": "terrarium.worlds.arithmetic",
    "Statements": "terrarium.worlds.statements",
    "load_statements": "terrarium.worlds.statements",
    "Scenes": "terrarium.worlds.scenes.world",
    "load_scene": "terrarium.worlds.scenes.load",
    "Camera": "terrarium.worlds.scenes.camera",
    "look_at": "terrarium.worlds.scenes.camera",
    "on_sphere": "terrarium.worlds.scenes.camera",
    "render": "terrarium.worlds.scenes.scene",
    "Picture": "terrarium.worlds.picture",
    "load_image": "terrarium.worlds.image_files",
    "Finite": "terrarium.worlds.finite",
    "Images": "terrarium.worlds.images.factors",
    "ImageMixture": "terrarium.worlds.images.mixtures",
    "Photographs": "terrarium.worlds.images.photographs",
    "check_world": "terrarium.worlds.check",
    "leakage": "terrarium.worlds.leakage",
    "generator": "terrarium.randomness",
    # organisms: what is grown
    "Recipe": "terrarium.organisms.recipe",
    "Phase": "terrarium.organisms.recipe",
    "Source": "terrarium.organisms.recipe",
    "load_recipe": "terrarium.organisms.recipe",
    "Organism": "terrarium.organisms.grow",
    "grow": "terrarium.organisms.grow",
    "load_folder": "terrarium.organisms.huggingface",
    "load_coordinate_network": "terrarium.organisms.coordinate_file",
    "NetworkField": "terrarium.organisms.network_field",
    "load_image_autoencoder": "terrarium.organisms.vision_folder",
    "load_radiance": "terrarium.organisms.radiance_file",
    "render_radiance": "terrarium.organisms.radiance_render",
    "FastRenderer": "terrarium.organisms.radiance_fast",
    "as_truth": "terrarium.organisms.radiance_truth",
    "RadianceViews": "terrarium.organisms.radiance_views",
    "Store": "terrarium.store",
    # readings: what a model did
    "Reading": "terrarium.readings.reading",
    "read": "terrarium.readings.read",
    "load_activations": "terrarium.readings.stored",
    "encode_statements": "terrarium.readings.text",
    "answer_tokens": "terrarium.organisms.objectives",
    # instruments: what we infer with
    "probes": "terrarium.instruments.base",
    "detectors": "terrarium.instruments.base",
    "dictionaries": "terrarium.instruments.base",
    "ContrastPairs": "terrarium.instruments.base",
    "check_probe": "terrarium.instruments.check_probe",
    "check_detector": "terrarium.instruments.check_detector",
    "check_dictionary": "terrarium.instruments.check_dictionary",
    "load_saelens": "terrarium.instruments.dictionaries.saelens",
    "save_saelens": "terrarium.instruments.dictionaries.saelens",
    "causal_effect": "terrarium.instruments.causal",
    "exact_effects": "terrarium.instruments.effects",
    "frobnoloids": "terrarium.instruments.frobnoloids.decide",
    # evidence: what may be concluded
    "Row": "terrarium.evidence.rows",
    "Hypothesis": "terrarium.evidence.hypotheses",
    "judge": "terrarium.evidence.hypotheses",
    "read_rows": "terrarium.evidence.table",
    "write_rows": "terrarium.evidence.table",
    "rows_frame": "terrarium.evidence.table",
    "query": "terrarium.evidence.table",
    # studies: what is asked
    "Study": "terrarium.studies.base",
    "all_studies": "terrarium.studies.base:studies",
    "run_study": "terrarium.studies.runner",
    "stored_rows": "terrarium.studies.runner",
    "render_report": "terrarium.pages.report",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'terrarium' has no attribute '{name}'")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute or name)


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from terrarium.evidence.hypotheses import Hypothesis, judge
    from terrarium.evidence.rows import Row
    from terrarium.evidence.table import query, read_rows, rows_frame, write_rows
    from terrarium.instruments.base import ContrastPairs, detectors, dictionaries, probes
    from terrarium.instruments.causal import causal_effect
    from terrarium.instruments.check_detector import check_detector
    from terrarium.instruments.check_dictionary import check_dictionary
    from terrarium.instruments.check_probe import check_probe
    from terrarium.instruments.dictionaries.saelens import load_saelens, save_saelens
    from terrarium.instruments.effects import exact_effects
    from terrarium.instruments.frobnoloids.decide import frobnoloids
    from terrarium.organisms.coordinate_file import load_coordinate_network
    from terrarium.organisms.grow import Organism, grow
    from terrarium.organisms.huggingface import load_folder
    from terrarium.organisms.network_field import NetworkField
    from terrarium.organisms.objectives import answer_tokens
    from terrarium.organisms.radiance_fast import FastRenderer
    from terrarium.organisms.radiance_file import load_radiance
    from terrarium.organisms.radiance_render import render_radiance
    from terrarium.organisms.radiance_truth import as_truth
    from terrarium.organisms.radiance_views import RadianceViews
    from terrarium.organisms.recipe import Phase, Recipe, Source, load_recipe
    from terrarium.organisms.vision_folder import load_image_autoencoder
    from terrarium.pages.report import render_report
    from terrarium.randomness import generator
    from terrarium.readings.read import read
    from terrarium.readings.reading import Reading
    from terrarium.readings.stored import load_activations
    from terrarium.readings.text import encode_statements
    from terrarium.store import Store
    from terrarium.studies.base import Study
    from terrarium.studies.base import studies as all_studies
    from terrarium.studies.runner import run_study, stored_rows
    from terrarium.worlds.arithmetic import Arithmetic
    from terrarium.worlds.base import Batch, World
    from terrarium.worlds.base import worlds as all_worlds
    from terrarium.worlds.check import check_world
    from terrarium.worlds.finite import Finite
    from terrarium.worlds.image_files import load_image
    from terrarium.worlds.images.factors import Images
    from terrarium.worlds.images.mixtures import ImageMixture
    from terrarium.worlds.images.photographs import Photographs
    from terrarium.worlds.leakage import leakage
    from terrarium.worlds.picture import Picture
    from terrarium.worlds.scenes.camera import Camera, look_at, on_sphere
    from terrarium.worlds.scenes.load import load_scene
    from terrarium.worlds.scenes.scene import render
    from terrarium.worlds.scenes.world import Scenes
    from terrarium.worlds.statements import Statements, load_statements
