"""Programs of many streams, on the real CLI: with our plugin, and with one that does nothing."""
