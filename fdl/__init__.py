"""fdl: Foundations of Deep Learning, pure Flax models and Optax optimizers under one compiled, exactly resumable step."""

from fdl import environment

__version__ = "0.1.0"

# JAX reads these once, when it is imported, so they must stand in the environment before any file of fdl imports it.
environment.set_defaults()
