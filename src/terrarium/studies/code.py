"""What decides the rows of a study beside its own modules, for the keys of its cells."""

from __future__ import annotations

from terrarium.keys import code_closure, code_package

ELSEWHERE = (
    "anatomy",
    "autoencoder",
    "classification",
    "classifier",
    "convolutional",
    "coordinate",
    "coordinate_encodings",
    "coordinate_file",
    "coordinate_foreign",
    "coordinate_hash",
    "denoiser",
    "denoising",
    "diffusion_sampling",
    "export",
    "folder",
    "huggingface",
    "network_field",
    "offline",
    "plain",
    "policy",
    "radiance",
    "radiance_fast",
    "radiance_file",
    "radiance_occupancy",
    "radiance_render",
    "radiance_truth",
    "radiance_views",
    "rendering",
    "retokenise",
    "state_files",
    "taesd",
    "text_autoencoder",
    "text_reconstruction",
    "vision_folder",
    "vision_network",
)
"""Modules of `terrarium.organisms` for other networks, or for writing networks for others."""

_PICTURES = ("effects", "quantities", "site_features")
_PICTURE_PACKAGES = ("dictionaries", "frobnoloids")
"""Modules and folders of `terrarium.instruments` that no study of text alone uses."""


def growing() -> tuple[str, ...]:
    """Return the modules by which a compact transformer is grown, loaded and asked.

    All but those `ELSEWHERE`, so that a new module counts until somebody says that it doesn't.
    """
    others = {f"terrarium.organisms.{name}" for name in ELSEWHERE}
    return tuple(name for name in code_package("terrarium.organisms") if name not in others)


def measuring() -> tuple[str, ...]:
    """Return the modules of all readings, probes, detectors and interventions.

    They are found by name, not imported.
    """
    base = "terrarium.instruments"
    others = tuple(f"{base}.{name}" for name in (*_PICTURES, *_PICTURE_PACKAGES))
    used = (
        name
        for name in code_package(base)
        if name not in others and not name.startswith(tuple(f"{o}." for o in others))
    )
    return ("terrarium.randomness", *code_package("terrarium.readings"), *used)


def road(world: str) -> tuple[str, ...]:
    """Return the modules from ``world`` (its module's name) to instruments.

    Whoever edits one of them measures again; what is grown has its own, narrower keys.
    """
    return (*code_closure(f"terrarium.worlds.{world}"), *growing(), *measuring())
