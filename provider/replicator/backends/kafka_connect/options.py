"""Options of a stream as Connect's flat configuration holds them."""

from __future__ import annotations


def option_text(value: object) -> str:
    """Return an option as text. All of Pulumi's numbers are floats."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
