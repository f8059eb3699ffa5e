"""Training: the pure step, the compiled program, and the loop."""
