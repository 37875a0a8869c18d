"""Write tiny dictionaries with SAELens, and what it computes with them.

Runs in an environment of its own (see README.md): ``python write_saelens.py FOLDER``.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    GatedSAE,
    GatedSAEConfig,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
)

D, K, ACTIVE = 6, 10, 3
SIZES = {"d_in": D, "d_sae": K}


def kinds():
    """Yield names and dictionaries with weights that are not what they start from."""
    yield "standard", StandardSAE(StandardSAEConfig(**SIZES))
    yield "standard_input", StandardSAE(StandardSAEConfig(apply_b_dec_to_input=False, **SIZES))
    yield "topk", TopKSAE(TopKSAEConfig(k=ACTIVE, **SIZES))
    rescaled = TopKSAEConfig(k=ACTIVE, rescale_acts_by_decoder_norm=True, **SIZES)
    yield "topk_rescaled", TopKSAE(rescaled)
    yield "jumprelu", JumpReLUSAE(JumpReLUSAEConfig(**SIZES))
    yield "gated", GatedSAE(GatedSAEConfig(**SIZES))
    yield "gated_input", GatedSAE(GatedSAEConfig(apply_b_dec_to_input=False, **SIZES))
    yield "batchtopk", BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=ACTIVE, **SIZES))
    nested = MatryoshkaBatchTopKTrainingSAEConfig(k=ACTIVE, matryoshka_widths=[4, K], **SIZES)
    yield "matryoshka_batchtopk", MatryoshkaBatchTopKTrainingSAE(nested)


def main(folder: Path) -> None:
    """Write each kind's files, and in expected.npz inputs, features and reconstructions.

    Training kinds are written twice, as they are saved in training and for inference; their
    features are those of the inference file.
    """
    from sae_lens import SAE

    torch.manual_seed(0)
    x = torch.randn(16, D) + 0.3
    expected = {"x": x.numpy()}
    for name, sae in kinds():
        for label, tensor in sae.named_parameters():
            spread = 0.2 if label.startswith(("b_", "r_")) else 0.6
            tensor.data = torch.randn_like(tensor) * spread
            if label == "threshold":
                tensor.data = tensor.data.abs() + 0.1
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold.fill_(0.45)
            sae.save_model(folder / f"{name}_training")
            sae.save_inference_model(folder / name)
        else:
            sae.save_model(folder / name)
        judge = SAE.load_from_disk(folder / name)
        with torch.no_grad():
            features = judge.encode(x)
            expected[f"{name}.features"] = features.numpy()
            expected[f"{name}.decoded"] = judge.decode(features).numpy()
    np.savez(folder / "expected.npz", **expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
