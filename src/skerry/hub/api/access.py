"""Who may do what: every operation with the lowest role it takes, and what it is to a token limited to sites.

A role may do what those before it in `ROLES` may. An operation that is not here is for admins alone; a test refuses
such a gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from skerry.spec.api import Role

ROLES: tuple[Role, ...] = ("viewer", "publisher", "operator", "admin")
"""From the lowest: who looks, who brings releases, who changes what sites run, who says who may."""

Needed = Role | Literal["open"]

Scoping = Literal["open", "own", "filtered", "narrowed", "inside", "everybody", "whole"]
"""How an operation treats a token that is limited to sites.

`open`: there is no token. `own`: it is about the token. `filtered`: sites outside are left out. `narrowed`: the
selector is. `inside`: what it names must be inside, else it is not there or refused. `everybody`: releases and
policies, which belong to no site. `whole`: refused, as it is about the whole fleet.
"""

ACCESS: Mapping[str, tuple[Needed, Scoping]] = {
    # open: whoever reaches the hub
    "login": ("open", "open"),
    # look
    "whoami": ("viewer", "own"),
    "list_sites": ("viewer", "filtered"),
    "show_site": ("viewer", "inside"),
    "list_hosts": ("viewer", "filtered"),
    "show_host": ("viewer", "inside"),
    "list_events": ("viewer", "filtered"),
    "list_health": ("viewer", "filtered"),
    "read_log": ("viewer", "filtered"),
    "list_applications": ("viewer", "filtered"),
    "list_models": ("viewer", "filtered"),
    "list_releases": ("viewer", "everybody"),
    "show_release": ("viewer", "everybody"),
    "list_rollouts": ("viewer", "filtered"),
    "show_rollout": ("viewer", "filtered"),
    "list_decisions": ("viewer", "inside"),
    "preview_release": ("viewer", "narrowed"),
    "preview_document": ("viewer", "narrowed"),
    "list_placements": ("viewer", "inside"),
    "explain_topics": ("viewer", "inside"),
    "explain_binding": ("viewer", "inside"),
    "show_diff": ("viewer", "everybody"),
    "show_traffic": ("viewer", "narrowed"),
    "show_delivery": ("viewer", "inside"),
    "list_volumes": ("viewer", "filtered"),
    "list_routes": ("viewer", "filtered"),
    "explain_route": ("viewer", "inside"),
    "list_names": ("viewer", "filtered"),
    "explain_name": ("viewer", "inside"),
    "list_policies": ("viewer", "everybody"),
    "show_policy": ("viewer", "everybody"),
    "list_configurations": ("viewer", "filtered"),
    "show_configuration": ("viewer", "filtered"),
    "render_configuration": ("viewer", "inside"),
    "list_relays": ("viewer", "whole"),
    "show_relay": ("viewer", "whole"),
    "show_pki": ("viewer", "everybody"),
    "explain_path": ("viewer", "inside"),
    "explain_policies": ("viewer", "everybody"),
    "download_evidence": ("viewer", "everybody"),
    "list_metadata": ("viewer", "everybody"),
    "get_metadata": ("viewer", "everybody"),
    "list_publishers": ("viewer", "everybody"),
    "query_metrics": ("viewer", "filtered"),
    "list_metrics": ("viewer", "filtered"),
    "list_telemetry_hosts": ("viewer", "filtered"),
    "expose_metrics": ("viewer", "filtered"),
    "show_top": ("viewer", "filtered"),
    "explain_drift": ("viewer", "filtered"),
    "list_topic_messages": ("viewer", "filtered"),
    "list_topic_sources": ("viewer", "filtered"),
    "list_sent": ("viewer", "filtered"),
    "list_sinks": ("viewer", "whole"),
    "show_sink": ("viewer", "whole"),
    # bring releases
    "create_release": ("publisher", "everybody"),
    "publish_metadata": ("publisher", "everybody"),
    "find_missing": ("publisher", "everybody"),
    "download": ("publisher", "everybody"),
    "upload": ("publisher", "everybody"),
    # change what sites run
    "apply_documents": ("operator", "inside"),
    "send_topic_message": ("operator", "filtered"),
    "remove_site": ("operator", "inside"),
    "create_join_token": ("operator", "inside"),
    "remove_host": ("operator", "inside"),
    "remove_release": ("operator", "whole"),
    "make_deltas": ("operator", "narrowed"),
    "remove_rollout": ("operator", "inside"),
    "retry_rollout": ("operator", "inside"),
    "pause_rollout": ("operator", "inside"),
    "resume_rollout": ("operator", "inside"),
    "approve_rollout": ("operator", "inside"),
    "abort_rollout": ("operator", "inside"),
    "wipe_volumes": ("operator", "inside"),
    "adopt_site": ("operator", "inside"),
    "reissue_site": ("operator", "inside"),
    "readmit_host": ("operator", "inside"),
    "remove_configuration": ("operator", "inside"),
    "create_relay_token": ("operator", "whole"),
    "remove_relay": ("operator", "whole"),
    "ask_logs": ("operator", "filtered"),
    "list_questions": ("operator", "filtered"),
    "show_logs": ("operator", "filtered"),
    "end_logs": ("operator", "inside"),
    "list_crashes": ("operator", "filtered"),
    "make_bundle": ("operator", "inside"),
    "import_reports": ("operator", "inside"),
    "list_authorities": ("viewer", "filtered"),
    "show_trust_bundle": ("viewer", "inside"),
    "list_secrets": ("operator", "whole"),
    "show_secret": ("operator", "whole"),
    "add_secret_version": ("operator", "whole"),
    "revoke_secret_version": ("operator", "whole"),
    "remove_secret": ("operator", "whole"),
    "explain_secret": ("operator", "whole"),
    "list_exposures": ("operator", "whole"),
    "forecast": ("operator", "whole"),
    # say who may, and what must be proven
    "remove_policy": ("admin", "whole"),
    "remove_sink": ("admin", "whole"),
    "request_issuer": ("admin", "whole"),
    "install_issuer": ("admin", "whole"),
    "list_tokens": ("admin", "whole"),
    "create_token": ("admin", "whole"),
    "revoke_token": ("admin", "whole"),
    "list_audit": ("admin", "whole"),
    "list_audit_entries": ("admin", "whole"),
    "show_audit_head": ("admin", "whole"),
}


def may(role: Role, needed: Needed) -> bool:
    """Tell whether a role suffices."""
    return needed == "open" or ROLES.index(role) >= ROLES.index(needed)
