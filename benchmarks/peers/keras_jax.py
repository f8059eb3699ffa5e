"""Keras 3 on JAX; KERAS_BACKEND in its environment says so."""

from benchmarks.peers import keras_nets

if __name__ == "__main__":
    keras_nets.train("jax")
