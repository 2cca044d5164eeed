"""Names the adapters of a hub: how it is put together and served, and what is done while it is not."""
