"""Keras 3 on TensorFlow; KERAS_BACKEND in its environment says so."""

from benchmarks.peers import keras_nets

if __name__ == "__main__":
    keras_nets.train("tensorflow")
