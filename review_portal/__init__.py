"""The review portal on a site: where experts label masked items."""
