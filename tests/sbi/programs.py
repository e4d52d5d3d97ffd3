"""Simulators that processes of their own can run, well and badly."""

import time

import numpy as np


def shifted(seed, loc):
    return loc + np.random.default_rng(seed).normal(size=2)


def faulty(seed, loc):
    """A tenth each: NaN, an exception, a wrong shape."""
    kind = seed % 10
    if kind == 0:
        return np.full(2, np.nan)
    if kind == 1:
        raise RuntimeError("the solver did not converge")
    if kind == 2:
        return np.zeros(3)
    return loc + np.zeros(2)


def hanging(seed, loc):
    if seed % 10 == 0:
        time.sleep(60.0)
    return loc + np.zeros(2)
