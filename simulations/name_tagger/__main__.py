"""`python -m simulations.name_tagger build|evaluate`."""

import argparse
import sys

from simulations.name_tagger.commands import add_actions


def main() -> int:
    """Parse the command line and run it."""
    parser = argparse.ArgumentParser(prog="name_tagger", description=__doc__)
    add_actions(parser)
    args = parser.parse_args()
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
