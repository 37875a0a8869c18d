"""Images with known answers: procedural ones, laws with an exact denoiser, photographs."""
