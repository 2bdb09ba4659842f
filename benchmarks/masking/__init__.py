"""What masking hides, what it lets through and what it costs, beside blank Presidio."""
