"""Stops a press when the counter that a camera sees is beyond the limit on the panel: a rule between topics."""
