"""Builds the name tagger that devices run: word lists, sentence templates, training, export."""
