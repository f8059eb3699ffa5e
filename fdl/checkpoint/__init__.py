"""Checkpoints and weights: written completely or not at all, verified before they are read."""
