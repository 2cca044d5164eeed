"""Skerry: Edge AI orchestration, from the packaged model to the running, observed and updatable site."""

__version__ = "0.1.0.dev0"
