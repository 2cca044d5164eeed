"""The hub's store in SQL."""
