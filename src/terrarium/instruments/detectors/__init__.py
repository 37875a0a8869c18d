"""Detectors: tell odd activations from trusted ones, without labels."""
