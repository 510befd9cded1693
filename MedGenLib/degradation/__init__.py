"""Degradations of an image: what thick slices, a low dose, noise, motion and a coil make of it.

Every degradation returns a new array of float32, draws from the generator that it is given, and is the identity at
strength 0. Arrays are (i, j, k).
"""
