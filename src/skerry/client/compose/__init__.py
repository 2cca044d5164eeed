"""Turns a Compose file into an Application: every key is mapped, noted, ignored or refused by the table in `keys`."""
