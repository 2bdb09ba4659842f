"""Sub-commands of `perimeter-portal`. Each module is imported only when its command runs."""
