"""Trains the autoencoder of permeability fields that ships with the package; two minutes of one core.

    python -m training.permeability_vae

The family: log permeability tanh(2 g) on the unit square, where g is a Matérn field of range 0.6 and smoothness 2.5:
two facies with soft edges between them. A third of the fields is given on 12 x 12 cells, a third on 16 x 16 and a third
on 20 x 20, which have few points in common.
"""

import argparse
import hashlib
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_inverse.calibration import mmd
from numpyro_inverse.distributions import FunctionSpaceGenerator, Matern
from numpyro_inverse.domains import Grid
from numpyro_inverse.nn import FunctionVAE, fit_function_vae, pad_fields, pretrained, save

SEED = 0
SIDES, FIELDS, TESTED = (12, 16, 20), 2000, 500
SETTINGS = {"learning_rate": 3e-3, "max_epochs": 24, "batch_size": 64, "gradient_norm": 100.0}
NAME = "permeability_vae"


def draw(grid: Grid, key: jax.Array, number: int) -> np.ndarray:
    """Log permeabilities."""
    g = Matern(grid, range=0.6, scale=1.0, smoothness=2.5, padding=1.5)
    return np.asarray(jnp.tanh(2 * g.sample(key, (number,))), np.float32)


def rescaled(vae: FunctionVAE, data: tuple) -> FunctionVAE:
    """The same autoencoder in latents that have mean zero and variance one over the data.

    The bound asks for that, but steps that change the unit of a latent in both networks at once are slow to be found.
    """
    rows = [jnp.asarray(a[:2000]) for a in data]
    m, log_sd = jax.lax.map(lambda row: vae.encode(*row), tuple(rows), batch_size=200)
    mean, sd = jnp.mean(m, axis=0), jnp.sqrt(jnp.var(m, axis=0) + jnp.mean(jnp.exp(2 * log_sd), axis=0))
    rows_scale = jnp.concatenate([1 / sd, jnp.ones_like(sd)])
    shift = jnp.concatenate([-mean / sd, -jnp.log(sd)])

    def outputs(layer: eqx.nn.Linear, shift: jax.Array) -> eqx.nn.Linear:
        new = (layer.weight * rows_scale[:, None], layer.bias * rows_scale + shift)
        return eqx.tree_at(lambda one: (one.weight, one.bias), layer, new)

    def inputs(layer: eqx.nn.Linear) -> eqx.nn.Linear:
        new = (layer.weight * sd, layer.bias + layer.weight @ mean)
        return eqx.tree_at(lambda one: (one.weight, one.bias), layer, new)

    where = (
        lambda v: v.encoder.linear,
        lambda v: v.encoder.rest.layers[-1],
        lambda v: v.decoder.linear,
        lambda v: v.decoder.rest.layers[0],
    )
    new = (outputs(where[0](vae), shift), outputs(where[1](vae), 0.0), inputs(where[2](vae)), inputs(where[3](vae)))
    return eqx.tree_at(lambda v: tuple(part(v) for part in where), vae, new)


def scores(vae: FunctionVAE, key: jax.Array) -> dict[str, float]:
    """On fields of the family on 32 x 32 cells, a grid without training data: the lower bound in nats; how far a field
    is from its reconstruction, root mean square; the pointwise standard deviation and the mean square difference
    between neighbors of the generator's fields over those of the family's; and the maximum mean discrepancy between
    500 fields of each, as its p-value."""
    truth, drawn, bound, labels = jax.random.split(key, 4)
    grid = Grid((32, 32))
    fields = draw(grid, truth, TESTED)
    rows = [jnp.asarray(a) for a in pad_fields([(grid, fields)], key=truth)]
    elbo = jax.lax.map(lambda row: vae.elbo(*row), (*rows, jax.random.split(bound, TESTED)), batch_size=100)

    def error(row: tuple) -> jax.Array:
        values, points, weights = row
        return jnp.sum(weights * (values - vae.evaluate(vae.encode(*row)[0], points)) ** 2)

    square = jax.lax.map(error, tuple(rows), batch_size=100)
    law = FunctionSpaceGenerator(vae.decode, vae.latent, vae.inner, grid, link=vae.link)
    made = np.asarray(law.sample(drawn, (TESTED,)))
    rough = [np.mean(np.diff(u, axis=1) ** 2) for u in (made, fields)]
    return {
        "test_elbo_nats": float(jnp.mean(elbo)),
        "test_reconstruction_rms": float(jnp.sqrt(jnp.mean(square))),
        "standard_deviation_ratio": float(np.std(made) / np.std(fields)),
        "roughness_ratio": float(rough[0] / rough[1]),
        "mmd_p_value": mmd(made[:, ::4, ::4], fields[:, ::4, ::4], labels).p_value,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(Path(pretrained.__file__).parent / f"{NAME}.safetensors"))
    arguments = parser.parse_args()
    made, first, second, mixed, tested, *drawn = jax.random.split(jax.random.key(SEED), 5 + len(SIDES))
    grids = [Grid((n, n)) for n in SIDES]
    data = pad_fields([(g, draw(g, k, FIELDS)) for g, k in zip(grids, drawn, strict=True)], key=mixed)
    fit = fit_function_vae(pretrained.permeability_vae(made), data, key=first, **SETTINGS)
    fit = fit_function_vae(rescaled(fit.module, data), data, key=second, **SETTINGS)
    print(f"{fit.stopped}; held-out losses {fit.held_out_loss}")
    found = scores(fit.module, tested)
    save(
        arguments.out,
        fit.module,
        name=NAME,
        seed=SEED,
        latent_size=fit.module.latent_size,
        settings=SETTINGS,
        sides=list(SIDES),
        epochs=[SETTINGS["max_epochs"], len(fit.held_out_loss)],
        training_fields_sha256=hashlib.sha256(b"".join(a.tobytes() for a in data)).hexdigest(),
        scale=float(fit.module.scale),
        **found,
    )
    print(found)


if __name__ == "__main__":
    main()
