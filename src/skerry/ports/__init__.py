"""What the processes ask of the world: Protocols only, each with its promise. Adapters keep them."""
