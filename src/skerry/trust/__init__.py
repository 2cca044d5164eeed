"""Pure trust: bytes, keys and an instant go in; a trusted value comes out, or `Untrusted` is raised.

No clock, no files, no network. Randomness is needed only where keys and secrets are made (`keys`).
"""
