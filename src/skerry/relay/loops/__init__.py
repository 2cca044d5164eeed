"""What a relay does for ever."""
