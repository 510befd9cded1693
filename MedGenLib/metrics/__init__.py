"""Measures of one image, of an image against a reference, and of cohorts."""
