"""`python -m replicator.cli`, for use without the console script."""

from replicator.cli import main

if __name__ == "__main__":
    main()
