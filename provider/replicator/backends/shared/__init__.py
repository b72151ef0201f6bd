"""Code that all backends share: ownership, reservations, identities of places, and coalesced requests to an engine."""
