"""Degradations of an image: thick slices, noise, artifacts of k-space and bias fields.

Every degradation returns a new array of float32, draws from the generator that it is given, and is the identity at
strength 0. Arrays are (i, j, k).
"""
