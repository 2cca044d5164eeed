"""Doubles that are shipped: they pass the contract tests of the real adapters, and fail when told to."""
