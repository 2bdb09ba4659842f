"""The central service: one label budget, one ledger, one model registry."""
