"""Probes: read a label from activations; every site and seed fitted in one batched solve."""
