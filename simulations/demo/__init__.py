"""The one-machine demo: every real process of the system on loopback, on real samples."""
