"""Pure reconciliation on one host: desired x observed -> actions, in order, each with its why."""
