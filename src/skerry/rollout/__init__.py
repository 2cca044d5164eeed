"""Pure rollout decisions: a rollout, the fleet and an instant go in; effects, a time to wake and the why come out."""
