"""Drawn data for where the real data set cannot be had."""
