"""Decisions of the portal as functions of values. No input or output here."""
