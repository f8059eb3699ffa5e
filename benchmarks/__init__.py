"""Measurements beside a reference in one run: ratios, alternated, median and spread. They judge nothing and fail on nothing."""
