"""Rollouts on virtual time: the real decisions, gates, planner and matching over a fleet that exists in memory only.

Rules: nothing here reads a clock or a random source of its own; all chance comes from one seed and a site's name, so
the same documents and seed give the same result, decision by decision. What must never happen ends a simulation.
"""
