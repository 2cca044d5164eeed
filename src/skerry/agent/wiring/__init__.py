"""Names the adapters of an agent: how its parts are opened, put together, and run."""
