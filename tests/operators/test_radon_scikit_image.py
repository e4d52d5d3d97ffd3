"""The conversion of scikit-image's angles and bins that docs/grids_and_points.md states."""

import jax.numpy as jnp
import numpy as np
import pytest
from skimage.transform import radon

from numpyro_inverse.domains import Grid
from numpyro_inverse.operators import Radon

THETA = np.arange(0.0, 180.0, 15.0)


@pytest.mark.parametrize("n", [31, 32])
def test_angles_and_bins(n):
    i, j = np.mgrid[:n, :n] - (n - 1) / 2
    image = np.exp(-(((i - 3) / 3) ** 2) - ((j + 4) / 2) ** 2)
    image[np.hypot(i, j) > n / 2 - 1] = 0
    theirs = radon(image, THETA, circle=True).T
    ours = np.asarray(Radon(Grid((n, n), extent=n), np.deg2rad(THETA + 90), num_bins=n)(jnp.asarray(image)))
    bins = np.arange(n)
    shift = (theirs @ bins) / theirs.sum(1) - (ours @ bins) / ours.sum(1)
    theta = np.deg2rad(THETA)
    stated = (1 - np.cos(theta) + np.sin(theta)) / 2 if n % 2 == 0 else np.zeros_like(theta)
    # Both are exact to about a hundredth of a bin: their image is interpolated linearly when it is rotated.
    np.testing.assert_allclose(shift, stated, atol=0.02)
    if n % 2:
        assert np.max(np.abs(ours - theirs)) < 0.02 * np.max(theirs)
