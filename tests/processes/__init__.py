"""Runs of several processes on one machine, started in a moment: a server imports everything once and forks.

The child is what `python -m fdl.main FLAGS` is: the same main(), with its own environment, standard streams and exit.
"""
