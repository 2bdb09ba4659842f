"""Masking: raw text in, masked text or a refusal out. The only importer of presidio.

Masking lowers the risk that an expert sees whom a text is about. It is risk reduction, never
anonymisation: the measured recall of the built-in chain is printed by `perimeter-agent mask check`.
"""
