"""Metrics of applications: read from their endpoints, counted by windows of event time, kept within bounds."""
