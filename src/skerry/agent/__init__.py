"""The agent: one process per host that makes the host what its site's desired state says, with or without a link."""
