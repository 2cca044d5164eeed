"""The hub's loops: load, decide, apply. The deciding is in the cores."""
