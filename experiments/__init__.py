"""One file an experiment: a function that returns one complete, frozen value."""
