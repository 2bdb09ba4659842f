"""Simulations, the one-machine demo and the tools that run production code in silico."""
