"""Taint test: marker secrets go into a whole federation, and every byte that left is searched."""
