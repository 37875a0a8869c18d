"""The hypotheses of `autoencoder`, written before the run."""

from __future__ import annotations

from terrarium.evidence.hypotheses import Hypothesis
from terrarium.evidence.predictions import Gate, above, within
from terrarium.evidence.quantities import Quantity, difference, per_seed
from terrarium.studies.autoencoder.arms import (
    ANY,
    AUTOENCODER,
    FEATURES,
    FEW,
    LATENT,
    LOADED,
    MEAN,
    NARROW,
    PCA,
    ROOMY,
    SINGLE,
    TIGHT,
    UNITS,
    VARYING,
)

MAIN = (FEW, NARROW, LOADED)
"""The arm whose optimum is attainable, or the first of a folder's images, or the loaded model."""


def reconstruction(arm: str, coder: str = AUTOENCODER) -> Quantity:
    """PSNR on images that nobody was trained on."""
    return per_seed("reconstruction", arm=arm, coder=coder).called(
        f"reconstruction by {coder} ({arm})", "dB"
    )


def learnt(arm: str | tuple[str, ...]) -> Gate:
    """Gate: the network makes less than half the error of the mean image.

    The untrained network is no bar here: it is worse than the mean image.
    """
    shown = arm if isinstance(arm, str) else arm[0]
    removed = per_seed("removed", arm=arm, of=MEAN)
    return Gate(
        removed.called(f"share of the mean image's error that the network does not make ({shown})"),
        at_least=0.5,
    )


def _by_kind(metric: str, words: str) -> Quantity:
    own, other = (per_seed(metric, arm=FEW, kind=kind) for kind in ("latent", "random"))
    return difference(own, other).called(f"{words}: latents minus random directions ({FEW})")


def _unit_loss(against: str, words: str) -> Quantity:
    ratio = per_seed("effect_ratio", arm=FEW, site=UNITS, part=SINGLE, against=against)
    return ratio.called(
        f"mean loss without a unit of the encoder's last maps to that of a {words}",
        "log10 of the ratio",
    )


HYPOTHESES = (
    Hypothesis(
        name="beats-pca",
        claim="With no more factors than latents an autoencoder makes much less error than the "
        "best linear code of the same size.",
        rival="Its code is hardly better than PCA (Baldi & Hornik 1989: without nonlinearities "
        "it is PCA).",
        counts_for="It makes less than half of PCA's squared error (3 dB).",
        counts_against="It makes more than half.",
        prediction=above(
            per_seed("removed", arm=MAIN, of=PCA).called(
                "share of PCA's error that the autoencoder does not make"
            ),
            0.5,
        ),
        gates=(learnt(MAIN),),
    ),
    Hypothesis(
        name="code-is-the-limit",
        claim="With more factors than latents the code is what limits reconstruction.",
        rival="Training and capacity limit it; more latents bring little.",
        counts_for="8 latents reconstruct images of 8 factors better than 4 by more than 2 dB.",
        counts_against="By less.",
        prediction=above(
            difference(reconstruction(ROOMY), reconstruction(TIGHT)).called(
                "dB that 8 latents gain over 4, images of 8 factors"
            ),
            2.0,
        ),
        gates=(learnt(TIGHT), learnt(ROOMY)),
    ),
    Hypothesis(
        name="errors-at-outlines",
        claim="What is lost lies at the outlines.",
        rival="It is spread over the whole shape: place, size and colour are lost.",
        counts_for="The squared error per pixel at outlines is more than twice (10^0.3) that "
        "inside shapes.",
        counts_against="It is less.",
        prediction=above(
            per_seed("outline_ratio", arm=FEW).called(
                f"squared error at outlines to that inside shapes ({FEW})", "log10 of the ratio"
            ),
            0.3,
        ),
        gates=(learnt(FEW),),
    ),
    Hypothesis(
        name="latents-follow-factors",
        claim="Single latents follow single factors more than random directions of the code do.",
        rival="Squared error cannot tell a code from its rotation, so no axis is special "
        "(Locatello et al. 2019, theorem 1).",
        counts_for="The largest factor's part of a latent's variance exceeds that of random "
        "directions by more than 0.05.",
        counts_against="By less.",
        prediction=above(_by_kind("alignment", "largest factor's part of the variance"), 0.05),
        gates=(learnt(FEW),),
    ),
    Hypothesis(
        name="effects-follow-factors",
        claim="Which images suffer from a latent's removal follows a known factor more than for "
        "random directions.",
        rival="What a latent adds is a mixture of factors, like any direction's.",
        counts_for="One factor explains more of the loss in dB over images, by an R² of more than "
        "0.05.",
        counts_against="By less.",
        prediction=above(_by_kind("effect_explained", "R² of the loss by one factor"), 0.05),
        gates=(learnt(FEW),),
    ),
    Hypothesis(
        name="latents-are-no-basis",
        claim="Taking a latent out costs as much as moving as far in a random direction.",
        rival="The axes of the code are special.",
        counts_for="The mean losses (dB) differ by a factor of less than 1.26 (10^0.1).",
        counts_against="By more.",
        prediction=within(
            per_seed("effect_ratio", arm=MAIN, site=LATENT, part=SINGLE, against=ANY).called(
                "mean loss without a latent to that of a random direction", "log10 of the ratio"
            ),
            0.1,
        ),
        gates=(learnt(MAIN),),
    ),
    Hypothesis(
        name="units-are-a-basis",
        claim="Units after a ReLU are special: taking one out costs more than moving as far in "
        "another direction.",
        rival="Directions of those maps are alike, or those in which the maps vary are.",
        counts_for="The mean loss exceeds that of random directions, and that of directions drawn "
        "with the maps' covariance, by a factor of more than 1.26 (10^0.1).",
        counts_against="By less than either.",
        prediction=(
            above(_unit_loss(ANY, "random direction"), 0.1),
            above(_unit_loss(VARYING, "direction in which they vary"), 0.1),
        ),
        gates=(learnt(FEW),),
    ),
    Hypothesis(
        name="features-matter",
        claim="Features of a sparse dictionary of the maps before the code are what the code is "
        "read from: taking one out costs more than moving as far in another direction in which the "
        "maps vary.",
        rival="A dictionary finds directions in which activations vary, and any such direction "
        "serves as well.",
        counts_for="The mean loss (dB) exceeds that of directions drawn with the maps' covariance, "
        "at the same images and places, by a factor of more than 1.26 (10^0.1).",
        counts_against="By less.",
        prediction=above(
            per_seed("effect_ratio", arm=MAIN, site=UNITS, part=FEATURES, against=VARYING).called(
                "mean loss without a feature of the maps before the code to that of a direction "
                "in which they vary",
                "log10 of the ratio",
            ),
            0.1,
        ),
        gates=(learnt(MAIN),),
    ),
)
