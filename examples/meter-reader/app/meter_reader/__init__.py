"""Reads handwritten digits from pictures of a counter: an example application for Skerry.

The package is served from a self-contained bundle and learns everything about a site from its environment:
where to listen, and where the model lies. It carries no model and no model version of its own, so one bundle
serves every model release.
"""
