"""Typed client of the hub's operator API, the login it works with, and the push of a release."""
