"""Dictionaries: sparse autoencoders and classical baselines over the activations of any site."""
