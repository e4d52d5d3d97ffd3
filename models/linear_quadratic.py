r"""Control: a linear system from its noisy output, and what a linear-quadratic regulator wanted from what it did.

:What: a damped oscillator, :math:`x_{t+1} = A x_t + B u_t + w_t`, position observed as :math:`y_t = C x_t + v_t`.
    :func:`identification_model`: frequency and damping from y. :func:`inverse_model`: the weights (q, r) of the
    quadratic cost :math:`\sum_t x_t^T \operatorname{diag}(q, 1) x_t + r u_t^2` from an expert's :math:`u_t = -K x_t`
    + noise, where K solves a Riccati equation.
:Dimension: 2 unknowns each; 100 outputs, or 50 controls.
:Prior: frequency log-normal about 1 rad/s, damping ratio uniform on (0, 1); cost weights log-normal about 1.
:Data: a simulated run.
:Likelihood: Gaussian: the exact marginal law of the output, by a Kalman filter; independent normal controls.
:Parameters: step 0.2 s; ``process`` and ``noise`` standard deviations.
:Symmetry: a cost of :math:`c\,(\operatorname{diag}(q_1, q_2), r)` has the same regulator for every c > 0: with all
    three unknown they are identified up to scale (``Scaling()`` on the three sites), and the prior has to choose.
:Reference posterior: by quadrature; the filter against the dense multivariate normal, the regulator against SciPy's
    Riccati solver.
:Source: R. E. Kalman, J. Basic Eng. 82 (1960) 35-45; F. C. Schweppe, IEEE Trans. Autom. Control 11 (1965) 61-70
    (likelihood by innovations); R. E. Kalman, J. Basic Eng. 86 (1964) 51-60 (inverse problem).
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from models.grid_world import solve_tangent

STEP = 0.2  # s
PROCESS, NOISE = 0.1, 0.05
POLICY_NOISE = 0.05


def oscillator(frequency, damping):
    r"""A of shape (2, 2), the exact step of :math:`\ddot x + 2 \zeta \omega \dot x + \omega^2 x = u`, and B, (2, 1)."""
    zero, one = jnp.zeros_like(frequency * damping), jnp.ones_like(frequency * damping)
    rows = [[zero, one, zero], [-(frequency**2), -2 * damping * frequency, one], [zero, zero, zero]]
    step = jax.scipy.linalg.expm(STEP * jnp.stack([jnp.stack(row) for row in rows]))
    return step[:2, :2], step[:2, 2:]


def kalman_log_likelihood(y, a, *, process=PROCESS, noise=NOISE):
    r"""The log density of outputs :math:`y_t = (x_t)_1 + v_t` of :math:`x_{t+1} = A x_t + w_t`, exactly.

    :math:`x_0 \sim N(0, I)`; :math:`w_t \sim N(0, \text{process}^2 I)`, :math:`v_t \sim N(0, \text{noise}^2)`.
    """

    def step(carry, y_t):
        mean, covariance = carry
        variance = covariance[0, 0] + noise**2
        gain = covariance[:, 0] / variance
        log_density = dist.Normal(mean[0], jnp.sqrt(variance)).log_prob(y_t)
        mean = a @ (mean + gain * (y_t - mean[0]))
        keep = jnp.eye(2) - jnp.outer(gain, jnp.array([1.0, 0.0]))
        updated = keep @ covariance @ keep.T + noise**2 * jnp.outer(gain, gain)  # Joseph's form
        return (mean, a @ updated @ a.T + process**2 * jnp.eye(2)), log_density

    return jax.lax.scan(step, (jnp.zeros(2), jnp.eye(2)), y)[1].sum()


class KalmanOutput(dist.Distribution):
    """The marginal law of ``length`` outputs of a linear system."""

    support = dist.constraints.real_vector
    pytree_data_fields = ("a",)
    pytree_aux_fields = ("length",)

    def __init__(self, a, length, *, validate_args=None):
        self.a, self.length = a, length
        super().__init__((), (length,), validate_args=validate_args)

    def log_prob(self, value):
        return kalman_log_likelihood(value, self.a)

    def sample(self, key, sample_shape=()):
        def one(key):
            keys = jax.random.split(key, 3)
            noise = NOISE * jax.random.normal(keys[2], (self.length,))
            shocks = PROCESS * jax.random.normal(keys[1], (self.length, 2))
            start = jax.random.normal(keys[0], (2,))
            states = jax.lax.scan(lambda x, w: (self.a @ x + w, x[0]), start, shocks)[1]
            return states + noise

        keys = jax.random.split(key, int(np.prod(sample_shape)))
        return jax.vmap(one)(keys).reshape((*sample_shape, self.length))


def identification_model(output=None, *, length=100):
    """The NumPyro model: sites ``frequency`` in rad/s, ``damping`` and ``output`` of shape ``(length,)``."""
    frequency = numpyro.sample("frequency", dist.LogNormal(0.0, 0.5))
    damping = numpyro.sample("damping", dist.Uniform(0.0, 1.0))
    numpyro.sample("output", KalmanOutput(oscillator(frequency, damping)[0], length), obs=output)


def regulator(q, r, a, b):
    r"""The gain K of the optimal control :math:`u = -K x`, shape (1, 2); derivatives by the implicit function theorem.

    The Riccati equation :math:`P = Q + A^T P A - A^T P B (r + B^T P B)^{-1} B^T P A` is solved by doubling: 16 times, a
    horizon of :math:`2^{16}` steps.
    """

    def gain(p):
        return jnp.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)

    def residual(p):
        p = p.reshape(2, 2)
        return (p - jnp.diag(q) - a.T @ p @ (a - b @ gain(p))).ravel()

    def doubling(_, start):
        def double(state, _):
            a, g, h = state
            w = jnp.linalg.inv(jnp.eye(2) + g @ h)
            return (a @ w @ a, g + a @ w @ g @ a.T, h + a.T @ h @ w @ a), None

        return jax.lax.scan(double, (a, b @ b.T / r, start.reshape(2, 2)), None, length=16)[0][2].ravel()

    p = jax.lax.custom_root(residual, jnp.diag(q).ravel(), doubling, solve_tangent)
    return gain(p.reshape(2, 2))


def inverse_model(states, controls=None, *, frequency=1.0, damping=0.1):
    """The NumPyro model: sites ``position``, ``velocity`` and ``effort`` (weights of the cost) and ``controls``."""
    weights = [numpyro.sample(name, dist.LogNormal(0.0, 1.0)) for name in ("position", "velocity", "effort")]
    k = regulator(jnp.stack(weights[:2]), weights[2], *oscillator(frequency, damping))
    numpyro.sample("controls", dist.Normal(-states @ k[0], POLICY_NOISE).to_event(1), obs=controls)


def simulate_output(key, *, frequency=1.0, damping=0.1, length=100):
    """Outputs of the oscillator, shape ``(length,)``."""
    return KalmanOutput(oscillator(jnp.asarray(frequency), jnp.asarray(damping))[0], length).sample(key)


def simulate_expert(key, weights, *, frequency=1.0, damping=0.1, length=50):
    """States, shape ``(length, 2)``, and controls of a regulator with the weights (position, velocity, effort)."""
    a, b = oscillator(jnp.asarray(frequency), jnp.asarray(damping))
    k = regulator(jnp.asarray(weights[:2]), jnp.asarray(weights[2]), a, b)

    def step(x, key):
        keys = jax.random.split(key)
        u = -k @ x + POLICY_NOISE * jax.random.normal(keys[0], (1,))
        return a @ x + b @ u + PROCESS * jax.random.normal(keys[1], (2,)), (x, u[0])

    return jax.lax.scan(step, jnp.array([2.0, 0.0]), jax.random.split(key, length))[1]
