"""The run directory: its lock, its settings, its logs."""
