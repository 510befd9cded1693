"""Checks of inputs and outputs, and the measures they and the benchmarks use."""
