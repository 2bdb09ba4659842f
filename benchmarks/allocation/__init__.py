"""How fast the allocator is, as ratios to a plain top-k on the same scores in the same run."""
