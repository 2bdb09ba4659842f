"""The daemon on a device: scores local data, masks what is asked for, sends numbers only."""
