"""`python -m replicator.cli`, for whoever has no console script at hand."""

from replicator.cli import main

if __name__ == "__main__":
    main()
