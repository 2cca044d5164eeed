"""One technology each, behind a port: SQL, object stores, files, the system's clock."""
