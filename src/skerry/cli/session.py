"""The client a command works with: the login of the environment or the profile, opened."""

from __future__ import annotations

import os

from skerry.cli.invocation import current
from skerry.client.client import Client
from skerry.client.connection import fetch_trust_root
from skerry.client.profile import choose_context


def connect() -> Client:
    """Return a client of the hub that this run is about; close it, or use it in a `with`.

    Raises:
        Rejected: nobody is logged in.
        Untrusted: the hub is not the one that was meant.
    """
    chosen = choose_context(os.environ, current().context)
    ca_pem = chosen.ca_pem or fetch_trust_root(chosen.hub, chosen.root).ca_pem
    return Client(chosen.hub, ca_pem=ca_pem, token=chosen.token)
