"""The published protocol: every strategy on every data set, in two leagues."""
