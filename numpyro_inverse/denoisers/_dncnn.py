"""DnCNN, the residual convolutional denoiser, and a reader of published weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_finite, check_instance, describe
from numpyro_inverse.denoisers._convolution import convolve_periodic
from numpyro_inverse.denoisers._denoiser import Denoiser, check_noise_level
from numpyro_inverse.denoisers._gradient_step import check_image

EPSILON = 1e-5  # of Flax's batch normalization
HERE = "load_dncnn"


class DnCNN(Denoiser):
    r"""The image minus a convolutional network's estimate of the noise, :math:`D(x, \sigma) = x - R(x, \sigma)`.

    R has convolutions of 3 x 3 on periodic images with ReLU between them; batch normalizations are folded into the
    weights. Its first layer has one channel, the image, and then the noise level has no effect, or two, the second of
    which is the noise level. It has no potential, and its Lipschitz constant exceeds 1: iterations with it may diverge.

    Args:
        kernels: of each layer, (3, 3, channels in, channels out).
        biases: of each layer, (channels out,).

    Raises:
        TypeError: no real numbers, in the weights or in ``x``.
        ValueError: weights that are not finite, or of shapes that do not follow each other; ``sigma`` not positive;
            ``x`` no image.

    References:
        K. Zhang, W. Zuo, Y. Chen, D. Meng and L. Zhang, *Beyond a Gaussian denoiser: residual learning of deep CNN for
        image denoising*, IEEE Trans. Image Process. 26 (2017).
    """

    kernels: tuple[Float[Array, "3 3 n m"], ...]
    biases: tuple[Float[Array, " m"], ...]

    def __init__(self, kernels: Sequence[Float[Array, "3 3 n m"]], biases: Sequence[Float[Array, " m"]]):
        self.kernels, self.biases = _arrays("kernels", kernels), _arrays("biases", biases)
        shapes = [kernel.shape for kernel in self.kernels]
        if any(len(shape) != 4 or shape[:2] != (3, 3) for shape in shapes):
            raise ValueError(f"DnCNN: `kernels` must have the shape (3, 3, channels in, channels out); got {shapes}.")
        if shapes[0][2] not in (1, 2) or any(one[3] != two[2] for one, two in pairwise(shapes)):
            raise ValueError(
                "DnCNN: `kernels` must begin with one or two channels, and take as many as the layer before gives; got "
                f"{shapes}."
            )
        if [bias.shape for bias in self.biases] != [shape[3:] for shape in shapes]:
            raise ValueError(
                f"DnCNN: `biases` must have the shapes {[shape[3:] for shape in shapes]}, one for each of `kernels`; "
                f"got {[bias.shape for bias in self.biases]}."
            )

    def __call__(self, x: Float[Array, "h w"], sigma: Any) -> Float[Array, "h w"]:
        check_noise_level("DnCNN", sigma)
        x = check_image("DnCNN", x)
        y = x[..., None]
        if self.kernels[0].shape[2] == 2:
            y = jnp.concatenate([y, jnp.broadcast_to(jnp.asarray(sigma, x.dtype), y.shape)], axis=-1)
        last = len(self.kernels) - 1
        for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            y = convolve_periodic(kernel.astype(x.dtype), y) + bias.astype(x.dtype)
            y = y if i == last else jax.nn.relu(y)
        return x - y[..., 0]


def load_dncnn(path: str | Path) -> DnCNN:
    """Read the weights of a DnCNN from a file ``dncnn*.mpk`` of the package SCICO.

    Such files are in the wheel of scico 0.0.7, in ``scico/data/flax``: of 6 and 17 layers, for gray images in [0, 1]
    and noise of 0.06 (L), 0.1 (M), 0.2 (H), or given (N). They are msgpack, as Flax writes it, and need ``msgspec``.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: msgspec is not installed.
        TypeError: ``path`` is no path.
        ValueError: the file is no such network.

    References:
        SCICO, https://github.com/lanl/scico, BSD 3-clause license.
    """
    if not isinstance(path, str | Path):
        raise TypeError(f"{HERE}: `path` must be the path of a file; got {describe(path)}.")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{HERE}: there is no file {path}.")
    import msgspec

    try:
        tree = msgspec.msgpack.decode(path.read_bytes(), ext_hook=_array)
        weights, statistics = tree["params"], tree["batch_stats"]
        kernels, biases = [_kernel(weights["conv_start"])], [np.zeros(weights["conv_start"]["kernel"].shape[-1])]
        for i in range(len(statistics)):
            block, counted = weights[f"ConvBNBlock_{i}"], statistics[f"ConvBNBlock_{i}"]["BatchNorm_0"]
            factor = block["BatchNorm_0"]["scale"] / np.sqrt(counted["var"] + EPSILON)
            kernels.append(_kernel(block["Conv_0"]) * factor)
            biases.append(block["BatchNorm_0"]["bias"] - counted["mean"] * factor)
        kernels.append(_kernel(weights["conv_end"]))
        biases.append(np.zeros(kernels[-1].shape[-1]))
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{HERE}: {path.name} is no DnCNN of SCICO ({error}).") from error
    return DnCNN(tuple(map(_single, kernels)), tuple(map(_single, biases)))


def _arrays(argument: str, values: Any) -> tuple[Array, ...]:
    check_instance("DnCNN", argument, values, tuple | list, "a list of arrays, one for each layer")
    if not values:
        raise ValueError(f"DnCNN: `{argument}` must be an array for each layer; got none.")
    return tuple(jnp.asarray(check_finite("DnCNN", argument, value)) for value in values)


def _single(array: np.ndarray) -> Array:
    return jnp.asarray(array, jnp.float32)


def _kernel(layer: dict[str, np.ndarray]) -> np.ndarray:
    kernel = layer["kernel"]
    if kernel.ndim != 4 or kernel.shape[:2] != (3, 3):
        raise ValueError(f"a kernel of shape {kernel.shape}")
    return kernel


def _array(code: int, data: Any) -> np.ndarray:
    """Flax writes an array as shape, type and bytes."""
    import msgspec

    shape, dtype, content = msgspec.msgpack.decode(data)
    return np.frombuffer(content, dtype).reshape(shape)
