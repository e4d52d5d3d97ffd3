"""The problems of kernels.py in NumPy alone, shared with the peers' environment: potentials, gradients and data."""

import numpy as np
import scipy.fft

SIZE, WIDTH, NOISE = (
    64,
    2.0,
    0.1,
)  # pixels a side; blur's standard deviation in pixels; of the data, whose sd is about 1
RANGE, SCALE, SMOOTHNESS = 12.0, 0.5, 1.0  # of the log-intensity; range in pixels


def amplitudes() -> np.ndarray:
    """Standard deviations of the log-intensity's cosine coefficients: a Matern spectrum of pixel variance SCALE^2."""
    k = np.pi * np.arange(SIZE) / SIZE
    variance = (2 * SMOOTHNESS / RANGE**2 + k[:, None] ** 2 + k**2) ** -(SMOOTHNESS + 1)
    return SCALE * np.sqrt(variance * SIZE**2 / variance.sum())


def transfer() -> np.ndarray:
    """Eigenvalues of the blur in the cosine basis."""
    k = np.pi * np.arange(SIZE) / SIZE
    return np.exp(-0.5 * WIDTH**2 * (k[:, None] ** 2 + k**2))


def forward(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Blur of the intensity exp(field), and the intensity, for white coefficients z of shape (64, 64)."""
    intensity = np.exp(scipy.fft.idctn(amplitudes() * z, norm="ortho"))
    return blur(intensity), intensity


def blur(image: np.ndarray) -> np.ndarray:
    """Gaussian, mirror boundaries; symmetric."""
    return scipy.fft.idctn(transfer() * scipy.fft.dctn(image, norm="ortho"), norm="ortho")


def deconvolution_data() -> np.ndarray:
    """Of a draw of the prior."""
    rng = np.random.default_rng(0)
    clean = forward(rng.standard_normal((SIZE, SIZE)))[0]
    return clean + NOISE * rng.standard_normal(clean.shape)


def deconvolution_log_density(data: np.ndarray):
    """Value and gradient of the log posterior density of z, flat."""

    def value_and_grad(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = x.reshape(SIZE, SIZE)
        mean, intensity = forward(z)
        residual = (data - mean) / NOISE**2
        slope = amplitudes() * scipy.fft.dctn(blur(residual) * intensity, norm="ortho")
        return -0.5 * (np.sum((data - mean) ** 2) / NOISE**2 + x @ x), slope.ravel() - x

    return value_and_grad
