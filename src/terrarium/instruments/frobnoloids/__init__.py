"""Frobnoloids: features that are regular, matter to the output, and have no known name.

Three scores, each with its null and interval: `structure`, `importance`, `nameability`; planted
features set the thresholds (`plants`), `decide` controls false discoveries, `scoring` does all of
it in one call, and `circuit` tells which upstream features compute one.
"""
