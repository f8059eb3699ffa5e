"""The sections of a report that tasks draw."""
