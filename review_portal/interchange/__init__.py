"""Import of seed labels and export of labels in the formats that other tools read."""
