"""Decisions of the coordinator as functions of values. No input or output here."""
