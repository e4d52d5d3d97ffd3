"""Variational autoencoders: a linear one against probabilistic principal components in closed form; input checks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from numpyro_inverse.distributions import Pushforward
from numpyro_inverse.nn import VAE, fit_vae
from numpyro_inverse.nn._square_networks import Neighborhoods, cut, join
from numpyro_inverse.nn._vae import kl_to_white

SIZE, LATENT, ROWS = 5, 2, 4000


def linear(key, scale=1.0):
    encoder, decoder = jax.random.split(key)
    return VAE(
        eqx.nn.Linear(SIZE, 2 * LATENT, key=encoder),
        eqx.nn.Linear(LATENT, SIZE, key=decoder),
        event_shape=(SIZE,),
        latent_size=LATENT,
        scale=scale,
    )


def components(rows):
    """Maximum likelihood of N(mean, W W^T + s^2 I): W's column space and the covariance (Tipping & Bishop 1999)."""
    values, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    noise = values[:-LATENT].mean()
    top = vectors[:, -LATENT:]
    return top, top * (values[-LATENT:] - noise) @ top.T + noise * np.eye(SIZE)


@pytest.mark.slow
def test_linear_autoencoder_is_probabilistic_pca(key):
    """The bound of a linear autoencoder is tight at its optimum (Lucas et al., NeurIPS 2019, theorem 1).

    Allowed: 5 Monte Carlo errors of the mean difference (a false alarm of 6e-7) and 0.01 nat of unfinished
    optimisation; angles to the principal subspace of the training rows below 0.03.
    """
    rng = np.random.default_rng(0)
    weights = np.array([[2.0, 0.3], [-1.0, 0.5], [0.5, 1.0], [0.0, -0.8], [1.0, 0.2]])
    rows = rng.normal(size=(ROWS, LATENT)) @ weights.T + 0.4 * rng.normal(size=(ROWS, SIZE)) + 0.5
    fit = fit_vae(
        linear(key), rows, key=key, batch_size=200, max_epochs=80, learning_rate=0.02, patience=80,
        gradient_norm=100.0, progress_bar=False,
    )  # fmt: skip
    train, held_out = rows[:3600], rows[3600:]
    subspace, covariance = components(train)
    exact = dist.MultivariateNormal(train.mean(0), covariance).log_prob(held_out)

    keys = jax.random.split(key, (64, len(held_out)))
    bound = np.asarray(jax.vmap(jax.vmap(fit.module.elbo), (None, 0))(jnp.asarray(held_out, jnp.float32), keys), float)
    gap = np.asarray(exact, float).mean() - bound.mean()
    error = bound.std(axis=0).mean() / np.sqrt(bound.size)
    assert -5 * error - 0.01 < gap < 5 * error + 0.01

    learned = np.linalg.qr(np.asarray(fit.module.decoder.weight, float))[0]
    sines = np.linalg.norm(learned - subspace @ (subspace.T @ learned), ord=2)
    assert np.arcsin(min(sines, 1.0)) < 0.03
    noise = np.linalg.eigvalsh(covariance)[0]
    np.testing.assert_allclose(fit.module.scale, np.sqrt(noise), rtol=0.02)


def test_divergence_against_monte_carlo(key):
    """|z| < 5: a false alarm of 6e-7."""
    m, log_sd = jnp.array([0.3, -1.2, 2.0]), jnp.array([-0.5, 0.2, -2.0])
    q = dist.Normal(m, jnp.exp(log_sd)).to_event(1)
    z = q.sample(key, (100_000,))
    ratio = np.asarray(q.log_prob(z) - dist.Normal(0, 1).expand([3]).to_event(1).log_prob(z), float)
    assert abs(ratio.mean() - kl_to_white(m, log_sd)) < 5 * ratio.std() / np.sqrt(len(ratio))
    np.testing.assert_allclose(kl_to_white(jnp.zeros(2), jnp.zeros(2)), 0, atol=1e-7)


@pytest.mark.parametrize("scale", [0.7, np.linspace(0.5, 1.5, SIZE)], ids=["one scale", "a scale per number"])
def test_bound_in_closed_form(key, scale):
    """With q a point mass nearly, the likelihood term is that of the decoded mean."""
    vae = eqx.tree_at(lambda v: v.encoder.weight, linear(key, scale), jnp.zeros((4, SIZE)))
    vae = eqx.tree_at(lambda v: v.encoder.bias, vae, jnp.array([0.4, -0.6, -12.0, -12.0]))
    x = jnp.arange(SIZE) / SIZE
    m, log_sd = vae.encode(x)
    likelihood = dist.Normal(vae.decode(m), scale).to_event(1).log_prob(x)
    np.testing.assert_allclose(vae.elbo(x, key), likelihood - kl_to_white(m, log_sd), rtol=1e-4)


@pytest.mark.slow
def test_images_and_generator_prior(key):
    """Shapes, the range of a logistic decoder, and a generator prior that crosses jit."""
    vae = VAE.for_images((8, 12), 3, width=4, key=key)
    prior = Pushforward(vae.decode, dist.Normal(0, 1).expand([3]).to_event(1))
    draws = jax.jit(lambda prior, key: prior.sample(key, (5,)))(prior, key)
    assert draws.shape == (5, 8, 12)
    assert np.all((draws > 0) & (draws < 1))
    np.testing.assert_allclose(draws, prior.sample(key, (5,)), rtol=1e-5)
    free = VAE.for_images((8, 12), 3, width=4, sigmoid=False, key=key)
    np.testing.assert_allclose(jax.nn.sigmoid(free.decode(jnp.ones(3))), vae.decode(jnp.ones(3)), rtol=1e-5)
    fit = fit_vae(vae, np.asarray(draws)[[0] * 20], key=key, batch_size=2, max_epochs=1, progress_bar=False)
    assert np.isfinite(fit.held_out_loss).all()


def test_squares_of_pixels_and_their_convolution(key):
    """Squares are neighbours in the image and come back; the layer over them is Equinox's convolution."""
    image = jnp.arange(96.0).reshape(8, 12)
    np.testing.assert_array_equal(cut(image)[1, 2].reshape(4, 4), image[4:, 8:])
    np.testing.assert_array_equal(join(cut(image)), image)
    layer, theirs = Neighborhoods(2, 3, key=key), eqx.nn.Conv2d(2, 3, 3, padding=1, key=key)
    weight = layer.linear.weight.reshape(3, 3, 3, 2).transpose(0, 3, 1, 2)
    theirs = eqx.tree_at(lambda c: (c.weight, c.bias), theirs, (weight, layer.linear.bias[:, None, None]))
    x = jax.random.normal(key, (4, 5, 2))
    np.testing.assert_allclose(layer(x), theirs(x.transpose(2, 0, 1)).transpose(1, 2, 0), rtol=1e-4, atol=1e-5)


def test_bad_networks(key):
    encoder, decoder = eqx.nn.Linear(5, 4, key=key), eqx.nn.Linear(2, 5, key=key)
    with pytest.raises(TypeError, match="`encoder` must be a function"):
        VAE(3, decoder, event_shape=(5,), latent_size=2)
    with pytest.raises(ValueError, match=r"`encoder` must return an array of shape \(6,\)"):
        VAE(encoder, eqx.nn.Linear(3, 5, key=key), event_shape=(5,), latent_size=3)
    with pytest.raises(ValueError, match=r"`decoder` does not take an array of shape \(2,\)"):
        VAE(encoder, eqx.nn.Linear(3, 5, key=key), event_shape=(5,), latent_size=2)
    with pytest.raises(ValueError, match="`scale` must be positive"):
        VAE(encoder, decoder, event_shape=(5,), latent_size=2, scale=0.0)
    with pytest.raises(ValueError, match="`scale` must broadcast"):
        VAE(encoder, decoder, event_shape=(5,), latent_size=2, scale=np.ones(4))
    with pytest.raises(ValueError, match="multiples of 4"):
        VAE.for_images((10, 8), 2, key=key)
    with pytest.raises(ValueError, match=r"VAE\.for_images: `latent_size` must be 1 or more; got 0"):
        VAE.for_images((8, 8), 0, key=key)
    with pytest.raises(TypeError, match=r"`width` must be an integer; got 2\.5"):
        VAE.for_images((8, 8), 2, width=2.5, key=key)


def test_bad_data(key):
    vae, rows = linear(key), np.ones((300, SIZE))
    with pytest.raises(TypeError, match="`vae` must be a VAE; got Linear"):
        fit_vae(vae.encoder, rows, key=key)
    with pytest.raises(TypeError, match="`data` must be an array"):
        fit_vae(vae, [1.0], key=key)
    with pytest.raises(ValueError, match=r"rows of `data` have shape \(4,\); the networks are for \(5,\)"):
        fit_vae(vae, rows[:, :4], key=key)
    for at in (0, 299):  # seen before training, and by the loop
        bad = rows.copy()
        bad[at, 1] = np.nan
        with pytest.raises(ValueError, match="fit_vae: `data` holds numbers that are not finite"):
            fit_vae(vae, bad, key=key, max_epochs=1, progress_bar=False)
    with pytest.raises(ValueError, match="fewer than `batch_size`"):
        fit_vae(vae, rows[:20], key=key)
    with pytest.raises(TypeError, match=r"fit_vae: `data` must be real numbers; got an array of <U"):
        fit_vae(vae, rows.astype(str), key=key)
    with pytest.raises(TypeError, match="fit_vae: `prepare` must be a function"):
        fit_vae(vae, rows, key=key, prepare=3)
    with pytest.raises(TypeError, match="epochs"):
        fit_vae(vae, rows, key=key, epochs=3)
