"""The heart: the pure step, the compiled program, and the loop."""
