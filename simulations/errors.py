"""Errors of simulations; each names the key, file or strategy and the remedy."""


class SimulationError(Exception):
    """Root of all simulation errors."""


class ConfigInvalid(SimulationError):
    """A configuration has an unknown key, a missing one or a value out of range."""


class DataInvalid(SimulationError):
    """A data file is missing or has another shape than its kind asks for."""
