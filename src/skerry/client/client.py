"""The operator API of the hub, one method per call, with the types of `skerry.spec.api`.

Every method may raise what `Connection.request` raises: `Rejected`, `Missing`, `Conflict`, `Denied`,
`Unauthenticated`, `Untrusted` as the hub says it, and `Unavailable` when no answer came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Literal, Self, TypeVar
from urllib.parse import quote

import msgspec

from skerry.client.answers import decode_answer
from skerry.client.connection import Connection, context_of
from skerry.client.logs import LogsClient
from skerry.client.topics import TopicsClient
from skerry.kit.errors import Missing, Untrusted
from skerry.spec.api import (
    ApplyAnswer,
    ApplyRequest,
    AppView,
    AuditView,
    BlobRef,
    EventView,
    FleetPreview,
    HostView,
    JoinTokenAnswer,
    JoinTokenRequest,
    JsonDocument,
    LoginRequest,
    MissingAnswer,
    MissingRequest,
    ModelView,
    NewToken,
    PlacementView,
    PreviewRequest,
    ReleaseView,
    RolloutView,
    SiteView,
    TokenRequest,
    TokenView,
    UploadAnswer,
    VolumesView,
    WhoAmI,
    WipeAnswer,
)
from skerry.spec.api_binding import BindingDecision
from skerry.spec.api_configuration import ConfigurationView, RenderedConfiguration
from skerry.spec.api_delivery import DeltaOrder, DeltaOrdered, HostDelivery, ReleaseDiff, TrafficPreview
from skerry.spec.api_events import LogPage, LogRequest
from skerry.spec.api_forecast import ForecastView
from skerry.spec.api_health import SiteHealth
from skerry.spec.api_ingress import RouteExplanation, RouteStanding
from skerry.spec.api_names import NameExplanation, NameStanding
from skerry.spec.api_pki import AuthorityView, PkiImport, PkiRequest, PkiView, TrustBundle
from skerry.spec.api_policy import PolicyDecision, PolicyView
from skerry.spec.api_quality import DriftAnswer
from skerry.spec.api_recovery import ReleasedView
from skerry.spec.api_relay import RelayStanding, RelayTokenAnswer, RelayTokenRequest, SitePath
from skerry.spec.api_rollout import AbortRequest, ApproveRequest, DecisionView, PauseRequest
from skerry.spec.api_secret import ExposureView, SecretAnswer, SecretDecision, SecretRequest, SecretView
from skerry.spec.api_telemetry import HostTelemetryView, MetricsAnswer, MetricView, TopAnswer
from skerry.spec.api_topics import SiteTopics
from skerry.spec.audit import AuditEntry, AuditHead
from skerry.spec.bundle import BundleAnswer, BundleRequest, CarriedAnswer, CarriedReports
from skerry.spec.publishing import MetadataRequest, MetadataView, PublisherView, PublishRequest

Deletable = Literal[
    "sites", "hosts", "releases", "rollouts", "policies", "relays", "secrets", "configurations", "sinks"
]
T = TypeVar("T")


class Client(TopicsClient, LogsClient):
    """One hub, as one caller sees it. Use it in a `with`, or close it."""

    def __init__(self, hub: str, *, ca_pem: str, token: str = "") -> None:
        self._connection = Connection(hub, context=context_of(ca_pem), token=token)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def login(self, secret: str) -> NewToken:
        """Trade the hub's one-time secret for a token."""
        return self._post("/login", LoginRequest(secret=secret), NewToken)

    def whoami(self) -> WhoAmI:
        """Return who the hub takes the caller for."""
        return self._get("/whoami", WhoAmI)

    def apply(
        self, documents: Sequence[JsonDocument], *, dry_run: bool = False, override_policy: str = ""
    ) -> ApplyAnswer:
        """Store documents, all or none; in a dry run, say what that would do.

        With a reason in `override_policy`, rollouts begin although policies are not satisfied.
        """
        request = ApplyRequest(documents=tuple(documents), dry_run=dry_run, override_policy=override_policy)
        return self._post("/apply", request, ApplyAnswer)

    def policies(self) -> list[PolicyView]:
        """Return the policies."""
        return self._get("/policies", list[PolicyView])

    def policy(self, name: str) -> PolicyView:
        """Return a policy."""
        return self._get(f"/policies/{_part(name)}", PolicyView)

    def configurations(self) -> list[ConfigurationView]:
        """Return the configurations."""
        return self._get("/configurations", list[ConfigurationView])

    def configuration(self, name: str) -> ConfigurationView:
        """Return a configuration."""
        return self._get(f"/configurations/{_part(name)}", ConfigurationView)

    def rendered_configuration(
        self, application: str, site: str, *, host: str = "", release: str = ""
    ) -> RenderedConfiguration:
        """Return what an application's configuration comes to at a site, or on one of its hosts."""
        path = f"/sites/{_part(site)}/configurations/{_part(application)}"
        return self._get(path, RenderedConfiguration, host=host, release=release)

    def policy_decision(self, release: str) -> PolicyDecision:
        """Return what the policies say of a release."""
        return self._get(f"/releases/{_part(release)}/policies", PolicyDecision)

    def evidence(self, release: str, digest: str) -> Iterator[bytes]:
        """Yield the bytes of a release's evidence; whoever takes them compares the digest."""
        return self._connection.stream(f"/api/v1/releases/{_part(release)}/evidence/{_part(digest)}")

    def sites(self, selector: str = "") -> list[SiteView]:
        """Return the sites a label selector names, or all."""
        return self._get("/sites", list[SiteView], selector=selector)

    def site(self, name: str) -> SiteView:
        """Return a site."""
        return self._get(f"/sites/{_part(name)}", SiteView)

    def health(self, *, site: str = "", selector: str = "") -> list[SiteHealth]:
        """Return how a site is, or those a label selector names, or all."""
        return self._get("/health", list[SiteHealth], site=site, selector=selector)

    def hosts(self, site: str = "") -> list[HostView]:
        """Return the hosts of a site, or of all."""
        return self._get("/hosts", list[HostView], site=site)

    def host(self, name: str) -> HostView:
        """Return a host."""
        return self._get(f"/hosts/{_part(name)}", HostView)

    def applications(self) -> list[AppView]:
        """Return the applications over the fleet."""
        return self._get("/applications", list[AppView])

    def models(self) -> list[ModelView]:
        """Return the models over the fleet, one entry per version."""
        return self._get("/models", list[ModelView])

    def releases(self, application: str = "") -> list[ReleaseView]:
        """Return the releases of an application, or of all."""
        return self._get("/releases", list[ReleaseView], application=application)

    def release(self, name: str) -> ReleaseView:
        """Return the release `application@version`."""
        return self._get(f"/releases/{_part(name)}", ReleaseView)

    def post_release(self, request: PublishRequest) -> tuple[ReleaseView, bool]:
        """Publish a signed release whose blobs the hub holds; tell whether it is new there."""
        content = msgspec.json.encode(request)
        status, body = self._connection.request("POST", "/api/v1/releases", content=content)
        return decode_answer(body, ReleaseView), status == 201

    def metadata(self, name: str, max_bytes: int) -> bytes | None:
        """Return a file of signed metadata, unverified; None where the hub has none.

        Raises:
            Untrusted: it is longer than it may be (`metadata.too_long`).
        """
        content = bytearray()
        try:
            for chunk in self._connection.stream(f"/api/v1/metadata/{_part(name)}"):
                content += chunk
                if len(content) > max_bytes:
                    raise Untrusted("metadata.too_long", f"{name} has more than {max_bytes} bytes")
        except Missing:
            return None
        return bytes(content)

    def metadata_view(self) -> MetadataView:
        """Return which version of every role the hub holds."""
        return self._get("/metadata", MetadataView)

    def post_metadata(self, request: MetadataRequest) -> MetadataView:
        """Publish signed metadata alone."""
        return self._post("/metadata", request, MetadataView)

    def publishers(self) -> list[PublisherView]:
        """Return the publishers, those that were revoked among them."""
        return self._get("/publishers", list[PublisherView])

    def preview(self, name: str, selector: str) -> FleetPreview:
        """Return what the release `application@version` would come to on the sites of a selector."""
        return self._get(f"/releases/{_part(name)}/preview", FleetPreview, selector=selector)

    def preview_document(self, release: JsonDocument, selector: str) -> FleetPreview:
        """Return the same of a pinned release document that need not have been pushed."""
        return self._post("/previews", PreviewRequest(release=release, selector=selector), FleetPreview)

    def release_diff(self, old: str, new: str) -> ReleaseDiff:
        """Return what changed from one release to another, and what it costs."""
        return self._get(f"/releases/{_part(new)}/diff", ReleaseDiff, old=old)

    def traffic(self, release: str, selector: str) -> TrafficPreview:
        """Return what bringing a release to the sites of a selector takes over their links."""
        return self._get(f"/releases/{_part(release)}/traffic", TrafficPreview, selector=selector)

    def delivery(self, release: str, host: str) -> HostDelivery:
        """Return how a release would come to a host, file by file."""
        return self._get(f"/releases/{_part(release)}/delivery", HostDelivery, host=host)

    def order_deltas(self, release: str, order: DeltaOrder) -> DeltaOrdered:
        """Have deltas made, and return how far that is."""
        return self._post(f"/releases/{_part(release)}/deltas", order, DeltaOrdered)

    def placements(self, site: str) -> list[PlacementView]:
        """Return where in a site its applications are placed."""
        return self._get(f"/sites/{_part(site)}/placements", list[PlacementView])

    def topics(self, site: str) -> SiteTopics:
        """Return what the applications of a site do on its message bus."""
        return self._get(f"/sites/{_part(site)}/topics", SiteTopics)

    def make_bundle(self, request: BundleRequest) -> BundleAnswer:
        """Return what is to be carried to some sites by hand, for `skerry.client.bundles` to put together."""
        return self._post("/bundles", request, BundleAnswer)

    def import_reports(self, reports: CarriedReports) -> CarriedAnswer:
        """Hand over reports that were carried by hand; again changes nothing."""
        return self._post("/reports", reports, CarriedAnswer)

    def query_metrics(self, query: str, *, by: str, since_s: float, selector: str) -> MetricsAnswer:
        """Return what a question about metrics came to, in groups by labels with commas between."""
        return self._get(
            "/metrics/query", MetricsAnswer, q=query, by=by, since_s=str(since_s), selector=selector
        )

    def metrics(self, selector: str = "*") -> list[MetricView]:
        """Return what there is to ask about."""
        return self._get("/metrics/names", list[MetricView], selector=selector)

    def telemetry_hosts(self, selector: str = "*") -> list[HostTelemetryView]:
        """Return how far hosts have told what they measured, and what is missing."""
        return self._get("/metrics/hosts", list[HostTelemetryView], selector=selector)

    def top(self, what: str, *, since_s: float, selector: str) -> TopAnswer:
        """Return which sites or apps take most, or which models predict most."""
        return self._get(f"/top/{_part(what)}", TopAnswer, since_s=str(since_s), selector=selector)

    def drift(self, application: str, *, since_s: float, selector: str) -> DriftAnswer:
        """Return how far the features of an application's models are from their references."""
        return self._get(f"/drift/{_part(application)}", DriftAnswer, since_s=str(since_s), selector=selector)

    def volumes(self, site: str = "") -> list[VolumesView]:
        """Return the volumes of the applications assigned to a site, or to all."""
        return self._get("/volumes", list[VolumesView], site=site)

    def wipe_volumes(self, site: str, application: str) -> WipeAnswer:
        """Ask a site's hosts to empty an application's volumes, once."""
        return self._post(f"/sites/{_part(site)}/applications/{_part(application)}/wipe", None, WipeAnswer)

    def adopt_site(self, name: str) -> ReleasedView:
        """Assign to a held site what its hosts run."""
        return self._post(f"/sites/{_part(name)}/adopt", None, ReleasedView)

    def reissue_site(self, name: str) -> ReleasedView:
        """Issue to a held site what the hub says."""
        return self._post(f"/sites/{_part(name)}/reissue", None, ReleasedView)

    def readmit_host(self, name: str) -> HostView:
        """End the quarantine of a host."""
        return self._post(f"/hosts/{_part(name)}/readmit", None, HostView)

    def secrets(self) -> list[SecretView]:
        """Return the secrets, without their values."""
        return self._get("/secrets", list[SecretView])

    def secret(self, name: str) -> SecretView:
        """Return a secret with its versions."""
        return self._get(f"/secrets/{_part(name)}", SecretView)

    def add_secret_version(self, name: str, request: SecretRequest) -> SecretAnswer:
        """Store the next version of a secret."""
        return self._post(f"/secrets/{_part(name)}/versions", request, SecretAnswer)

    def revoke_secret(self, name: str, version: int, *, dry_run: bool, force: bool) -> SecretAnswer:
        """Have a version used nowhere any more."""
        asked = {"dry_run": "true" if dry_run else "", "force": "true" if force else ""}
        return self._post(f"/secrets/{_part(name)}/versions/{version}/revoke", None, SecretAnswer, **asked)

    def forecast(self, *, site: str = "", within_s: int = 0) -> list[ForecastView]:
        """Return what runs out before its host is expected back, or within a time."""
        return self._get("/forecast", list[ForecastView], site=site, within_s=str(within_s))

    def secret_decision(self, name: str, site: str) -> SecretDecision:
        """Return which version a site gets, and why."""
        return self._get(f"/secrets/{_part(name)}/sites/{_part(site)}", SecretDecision)

    def routes(self, *, site: str = "", application: str = "") -> list[RouteStanding]:
        """Return the routes of hosts, of one site or all."""
        return self._get("/routes", list[RouteStanding], site=site, application=application)

    def explain_route(self, url: str, site: str) -> RouteExplanation:
        """Return what answers a request at a site."""
        return self._get(f"/sites/{_part(site)}/route", RouteExplanation, url=url)

    def names(self, *, site: str = "") -> list[NameStanding]:
        """Return the names of a site, or of all."""
        return self._get("/names", list[NameStanding], site=site)

    def explain_name(self, name: str, site: str) -> NameExplanation:
        """Return where a name leads at a site, and why."""
        return self._get(f"/sites/{_part(site)}/name", NameExplanation, asked=name)

    def binding_decision(self, application: str, site: str) -> BindingDecision:
        """Return what an application is joined to at a site, and why."""
        return self._get(f"/sites/{_part(site)}/bindings/{_part(application)}", BindingDecision)

    def exposures(self, host: str) -> list[ExposureView]:
        """Return what a host could read."""
        return self._get(f"/hosts/{_part(host)}/secrets", list[ExposureView])

    def pki(self) -> PkiView:
        """Return the roots that sites trust, and the issuers that the hub is or was."""
        return self._get("/pki", PkiView)

    def authorities(self, site: str = "") -> list[AuthorityView]:
        """Return hosts' intermediates, of one site or of all."""
        return self._get("/pki/authorities", list[AuthorityView], site=site)

    def trust_bundle(self, site: str) -> TrustBundle:
        """Return what verifies certificates of a site."""
        return self._get(f"/pki/sites/{_part(site)}/bundle", TrustBundle)

    def request_issuer(self) -> PkiRequest:
        """Return a signing request of the hub."""
        return self._post("/pki/request", None, PkiRequest)

    def install_issuer(self, pem: str, *, dry_run: bool = False) -> PkiView:
        """Have the hub issue with what a root has made of its request."""
        return self._post("/pki/issuer", PkiImport(pem=pem, dry_run=dry_run), PkiView)

    def rollouts(self) -> list[RolloutView]:
        """Return all rollouts."""
        return self._get("/rollouts", list[RolloutView])

    def rollout(self, name: str) -> RolloutView:
        """Return a rollout."""
        return self._get(f"/rollouts/{_part(name)}", RolloutView)

    def rollout_decisions(self, name: str, *, limit: int) -> list[DecisionView]:
        """Return the newest decisions about a rollout, the newest first."""
        return self._get(f"/rollouts/{_part(name)}/decisions", list[DecisionView], limit=str(limit))

    def pause_rollout(self, name: str, why: str, *, dry_run: bool = False) -> RolloutView:
        """Offer a rollout's release to no further site. A dry run, here as below, returns what would be stored."""
        return self._steer(name, "pause", PauseRequest(why=why), dry_run=dry_run)

    def resume_rollout(self, name: str, *, dry_run: bool = False) -> RolloutView:
        """Go on with a paused rollout."""
        return self._steer(name, "resume", None, dry_run=dry_run)

    def approve_rollout(self, name: str, wave: str, *, dry_run: bool = False) -> RolloutView:
        """Let a wave begin; empty: the next that waits for approval."""
        return self._steer(name, "approve", ApproveRequest(wave=wave), dry_run=dry_run)

    def abort_rollout(self, name: str, asked: AbortRequest, *, dry_run: bool = False) -> RolloutView:
        """End a rollout."""
        return self._steer(name, "abort", asked, dry_run=dry_run)

    def retry_rollout(self, name: str, *, dry_run: bool = False) -> RolloutView:
        """Try a failed rollout again, on its sites that did not get there."""
        return self._steer(name, "retry", None, dry_run=dry_run)

    def delete(self, what: Deletable, name: str) -> None:
        """Delete a site, host, release, policy, relay or ended rollout."""
        self._connection.request("DELETE", f"/api/v1/{what}/{_part(name)}")

    def join_token(self, site: str, request: JoinTokenRequest) -> JoinTokenAnswer:
        """Return a fresh join token of a site."""
        return self._post(f"/sites/{_part(site)}/join-tokens", request, JoinTokenAnswer)

    def relays(self) -> list[RelayStanding]:
        """Return the relays, by name."""
        return self._get("/relays", list[RelayStanding])

    def relay(self, name: str) -> RelayStanding:
        """Return a relay."""
        return self._get(f"/relays/{_part(name)}", RelayStanding)

    def relay_token(self, relay: str, request: RelayTokenRequest) -> RelayTokenAnswer:
        """Return a fresh token with which a relay joins."""
        return self._post(f"/relays/{_part(relay)}/tokens", request, RelayTokenAnswer)

    def site_path(self, site: str) -> SitePath:
        """Return which way the blobs and reports of a site's hosts take."""
        return self._get(f"/sites/{_part(site)}/path", SitePath)

    def tokens(self) -> list[TokenView]:
        """Return the API tokens, without their secrets."""
        return self._get("/tokens", list[TokenView])

    def create_token(self, request: TokenRequest) -> NewToken:
        """Return a fresh API token with its secret."""
        return self._post("/tokens", request, NewToken)

    def revoke_token(self, id: str) -> None:
        """Revoke an API token."""
        self._connection.request("DELETE", f"/api/v1/tokens/{_part(id)}")

    def events(self, *, site: str = "", host: str = "", limit: int = 100) -> list[EventView]:
        """Return the newest events, at most `limit`."""
        return self._get("/events", list[EventView], site=site, host=host, limit=str(limit))

    def log(self, asked: LogRequest) -> LogPage:
        """Return a page of what happened at hosts and at the hub."""
        return self._post("/log", asked, LogPage)

    def audit(self, *, limit: int = 100) -> list[AuditView]:
        """Return who did what, the newest first, at most `limit`."""
        return self._get("/audit", list[AuditView], limit=str(limit))

    def audit_entries(self, *, after: int, limit: int) -> list[AuditEntry]:
        """Return the oldest entries of the audit above a number, as they are chained."""
        return self._get("/audit/entries", list[AuditEntry], after=str(after), limit=str(limit))

    def audit_head(self) -> AuditHead:
        """Return the newest entry of the audit, as the hub tells of it."""
        return self._get("/audit/head", AuditHead)

    def missing(self, blobs: Sequence[BlobRef]) -> MissingAnswer:
        """Return which of these blobs the hub lacks, and where their uploads stand."""
        return self._post("/blobs/missing", MissingRequest(blobs=tuple(blobs)), MissingAnswer)

    def download(self, digest: str) -> Iterator[bytes]:
        """Yield the bytes of a blob in pieces; whoever takes them compares the digest."""
        return self._connection.stream(f"/api/v1/blobs/{_part(digest)}")

    def upload(self, blob: BlobRef, *, offset: int, chunk: bytes) -> UploadAnswer:
        """Append a chunk to a blob's upload, which must stand at `offset`."""
        _, body = self._connection.request(
            "PUT",
            f"/api/v1/uploads/{_part(blob.digest)}",
            params={"offset": str(offset), "size": str(blob.size_bytes)},
            content=chunk,
            media_type="application/octet-stream",
        )
        return decode_answer(body, UploadAnswer)

    def _get(self, path: str, kind: type[T], **params: str) -> T:
        _, body = self._connection.request("GET", f"/api/v1{path}", params=params)
        return decode_answer(body, kind)

    def _post(self, path: str, request: msgspec.Struct | None, kind: type[T], **params: str) -> T:
        content = msgspec.json.encode(request) if request is not None else b""
        _, body = self._connection.request("POST", f"/api/v1{path}", params=params, content=content)
        return decode_answer(body, kind)

    def _steer(self, name: str, verb: str, request: msgspec.Struct | None, *, dry_run: bool) -> RolloutView:
        path = f"/rollouts/{_part(name)}/{verb}"
        return self._post(path, request, RolloutView, dry_run="true" if dry_run else "")


def _part(name: str) -> str:
    """Return a name as one part of a path, whatever is in it."""
    return quote(name, safe="@:")
