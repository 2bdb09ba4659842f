"""What a signed model is: manifest, label schema, feature extraction, signing. Pure."""
