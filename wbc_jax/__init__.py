"""White blood cell classification in JAX and Flax: models, training, evaluation and export.

The package itself imports nothing heavy: `import wbc_jax.models` and `import wbc_jax.train.steps` need only
jax, flax and optax, so that experiments run on a bare accelerator image.
"""

__version__ = "0.1.0"
