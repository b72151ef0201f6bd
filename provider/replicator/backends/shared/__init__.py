"""What every backend uses: ownership, reservations, identities of places, and shared questions to an engine."""
