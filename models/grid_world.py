r"""What an agent wants, from where it goes: maximum-entropy inverse reinforcement learning on a grid.

:What: an agent on a 6 x 6 grid moves in four directions, slips sideways with probability 0.2, and follows
    :math:`\pi(a | s) = e^{Q(s, a) - V(s)}`, where
    :math:`Q(s, a) = r_\theta(s) + \gamma \sum_{s'} P(s' | s, a) V(s')` and :math:`V(s) = \log \sum_a e^{Q(s, a)}`.
:Dimension: 2 unknowns, 200 visited states and actions.
:Prior: ``weights`` of the features, nearness to a goal and a swamp, independent normal, standard deviation 3.
:Data: states (given) and actions.
:Likelihood: categorical; states follow from the known dynamics.
:Parameters: the reward is :math:`r_\theta(s) = \theta \cdot f(s)` per step. A constant added to it changes no policy,
    so no feature is constant.
:Reference posterior: by quadrature over soft value iteration in NumPy, :func:`exact_posterior`.
:Source: B. D. Ziebart et al., AAAI 2008, 1433-1438; soft value iteration: T. Haarnoja et al., ICML 2017, eq. 5-6.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.special import logsumexp

SIDE, SLIP, DISCOUNT = 6, 0.2, 0.9
GOAL, SWAMP = (5, 5), (2, 3)
PRIOR_SCALE = 3.0
MOVES = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])


def features():
    """Nearness exp(-distance / 2) to the goal and to the swamp, shape ``(36, 2)``."""
    cells = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), axis=-1).reshape(-1, 2)
    return np.stack([np.exp(-np.linalg.norm(cells - place, axis=1) / 2) for place in (GOAL, SWAMP)], axis=-1)


def transitions():
    """Probabilities P(s' | s, a), shape ``(36, 4, 36)``; a wall keeps the agent where it is."""
    cells = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), axis=-1).reshape(-1, 2)
    target = np.clip(cells[:, None] + MOVES, 0, SIDE - 1) @ [SIDE, 1]
    goes = np.eye(SIDE**2)[target]
    return (1 - SLIP) * goes + SLIP / 2 * (np.roll(goes, 1, axis=1) + np.roll(goes, -1, axis=1))


def soft_q_values(reward, tolerance=1e-5):
    r"""Q(s, a) of the maximum-entropy policy, by soft value iteration; derivatives by the implicit function theorem.

    Args:
        reward: r(s), shape ``(36,)``.
        tolerance: of V, relative to the largest of 1 and \|V\|: what the iterations left can still change.
    """
    matrix = jnp.asarray(transitions())

    def q_values(value):
        return reward[:, None] + DISCOUNT * matrix @ value

    def residual(value):
        return value - jax.nn.logsumexp(q_values(value), axis=1)

    def iterate(residual, start):
        def unfinished(state):
            value, change = state
            left = DISCOUNT / (1 - DISCOUNT) * change
            return left > tolerance * jnp.maximum(1, jnp.max(jnp.abs(value)))

        def step(state):
            change = residual(state[0])
            return state[0] - change, jnp.max(jnp.abs(change))

        return jax.lax.while_loop(unfinished, step, (start, jnp.full((), jnp.inf, start.dtype)))[0]

    return q_values(jax.lax.custom_root(residual, jnp.zeros_like(reward), iterate, solve_tangent))


def solve_tangent(linear, y):
    """The x with linear(x) = y, for a handful of unknowns."""
    return jnp.linalg.solve(jax.jacobian(linear)(y), y)


def model(states, actions=None):
    """The NumPyro model: sites ``weights`` of shape ``(2,)`` and ``actions``, one for each of ``states``."""
    weights = numpyro.sample("weights", dist.Normal(0.0, PRIOR_SCALE).expand([2]).to_event(1))
    q = soft_q_values(jnp.asarray(features()) @ weights)
    numpyro.sample("actions", dist.Categorical(logits=q[states]).to_event(1), obs=actions)


def simulate(key, weights, *, num_paths=10, length=20):
    """States and actions of an agent that knows what it wants, each of shape ``(num_paths * length,)``."""
    q = soft_q_values(jnp.asarray(features()) @ jnp.asarray(weights))
    log_transitions = jnp.log(jnp.asarray(transitions()))

    def path(key):
        key_start, key_path = jax.random.split(key)

        def step(state, key):
            key_action, key_next = jax.random.split(key)
            action = jax.random.categorical(key_action, q[state])
            return jax.random.categorical(key_next, log_transitions[state, action]), (state, action)

        start = jax.random.randint(key_start, (), 0, SIDE**2)
        return jax.lax.scan(step, start, jax.random.split(key_path, length))[1]

    states, actions = jax.vmap(path)(jax.random.split(key, num_paths))
    return states.ravel(), actions.ravel()


def value_iteration(reward, iterations=400):
    """Q(s, a) of rewards of shape ``(..., 36)``, float64: the error falls by the discount in each iteration."""
    matrix, reward = transitions(), np.asarray(reward, float)
    value = np.zeros_like(reward)
    for _ in range(iterations):
        q = reward[..., None] + DISCOUNT * np.tensordot(value, matrix, (-1, -1))
        value = logsumexp(q, axis=-1)
    return q


def exact_posterior(states, actions, *, center, spread, cells=25):
    """Mean and covariance of ``weights`` by quadrature on ``center`` ± 6 ``spread``, float64."""
    axes = [c + 6 * s * np.linspace(-1, 1, cells) for c, s in zip(center, spread, strict=True)]
    theta = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    q = value_iteration(theta @ features().T)
    log_policy = q - logsumexp(q, axis=-1, keepdims=True)
    log_joint = log_policy[:, np.asarray(states), np.asarray(actions)].sum(axis=1)
    log_joint -= 0.5 * np.sum(theta**2, axis=1) / PRIOR_SCALE**2
    density = np.exp(log_joint - log_joint.max())
    density /= density.sum()
    mean = density @ theta
    return mean, (density * (theta - mean).T) @ (theta - mean)
