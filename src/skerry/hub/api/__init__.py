"""The operator API: one module per subject, Litestar handlers that load, check and store."""
