"""Where samples come from: watched folders, growing files, local push."""
