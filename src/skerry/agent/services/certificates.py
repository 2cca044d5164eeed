"""A host's certificates: follows the hub about its intermediate, and hands applications what they ask for.

At each step: what the hub says is taken, what is due is renewed, and components that run are told. Nothing here needs a
link once the intermediate is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from skerry.agent.authority import HostAuthority, Note
from skerry.agent.secret_files import Owner
from skerry.agent.secret_telling import SecretTelling
from skerry.agent.services.host_service import NOTHING, Given, HostService, Turn
from skerry.agent.services.places import ComponentPlace, places_of
from skerry.agent.site_ca import CertificateFiles, LocalCertificates, Wanted
from skerry.kit.errors import SkerryError, Unavailable
from skerry.ports.runtime import InstanceView, Mount
from skerry.reconcile.records import ReleaseFact
from skerry.spec.application import CertificateUse, Component, SecretUse
from skerry.spec.pki import SitePki
from skerry.spec.report import Observed
from skerry.trust.pki import LOCAL_NAME, spiffe_id
from skerry.trust.secret_choice import InUse

CERTIFICATES = "/skerry/certificates"
"""Where a container finds its certificates."""
LOOPBACK = ("127.0.0.1", "::1")


class CertificateParts(msgspec.Struct, frozen=True, kw_only=True):
    """What the service works with; `fact_of` tells of a release by digest."""

    site: str
    authority: HostAuthority
    local: LocalCertificates
    telling: SecretTelling
    fact_of: Callable[[str], ReleaseFact | None]
    note: Note


class HostCertificates(HostService):
    """The certificates of one host; other services ask its `local` for theirs."""

    name = "certificates"

    def __init__(self, parts: CertificateParts) -> None:
        super().__init__()
        self._parts = parts
        self._pki = SitePki()
        self._outdated: Mapping[str, str] = {}
        self._trouble = ""
        self.local = parts.local

    @property
    def outdated(self) -> Mapping[str, str]:
        return self._outdated

    def show(self, observed: Observed) -> Observed:
        view = self._parts.authority.view(self._pki)
        local = self._parts.local
        trouble = (self._trouble or local.trouble)[:1024]
        view = msgspec.structs.replace(view, certificates=local.issued(), trouble=trouble)
        return msgspec.structs.replace(observed, pki=view)

    async def follow(self, turn: Turn) -> None:
        """Bring the intermediate, files and components to what is desired, needed here, and due now."""
        if turn.desired is None:
            return
        self._pki = turn.desired.pki
        if not self._pki.roots and not self._parts.authority.path.exists():
            return  # a hub without certificates: no key is needed either
        try:
            if not self._parts.authority.is_settled(self._pki):
                # What keeps the keys may take seconds to open them, and heartbeats do not wait.
                await asyncio.to_thread(self._parts.authority.follow, self._pki)
            self._follow(turn)
        except SkerryError as error:
            if self._trouble != error.message:
                self._parts.note("pki.trouble", f"{error.code}: {error.message}")
            self._trouble = error.message
        else:
            self._trouble = ""

    def withheld(self, digests: set[str]) -> dict[str, str]:
        """Return which of these releases wait for a certificate, and why there is none."""
        why = self._trouble or self._parts.authority.why_none
        facts = {digest: self._parts.fact_of(digest) for digest in digests} if why else {}
        return {
            digest: f"waiting for its certificates: {why}"
            for digest, fact in facts.items()
            if fact is not None and any(component.certificates for component in fact.components)
        }

    def give(self, application: str, fact: ReleaseFact, component: Component) -> Given:
        """Return where a component that is about to be started finds its certificates.

        Raises:
            Unavailable: there is none (`certificate.missing`).
        """
        if not component.certificates:
            return NOTHING
        place = ComponentPlace(application, fact, component)
        marks: dict[str, str] = {}
        folder = None
        for use in component.certificates:
            files = self._parts.local.ask(self._wanted(place, use))
            if files is None:
                why = self._parts.local.why(use.name, place.name)
                raise Unavailable("certificate.missing", f"there is no certificate {use.name}: {why}")
            marks[use.name], folder = files.mark, files.cert.parent.parent
        self._parts.telling.note_launch(place.instance, marks)
        assert folder is not None
        seen = CERTIFICATES if component.image is not None else str(folder)
        return Given(
            env={"SKERRY_CERTIFICATES": seen},
            values={"certificates": seen},
            mounts=(Mount(folder, CERTIFICATES),),
        )

    async def close(self) -> None:
        """Stop telling components; who was not told is told by the next agent."""
        await self._parts.telling.close()

    def _follow(self, turn: Turn) -> None:
        local = self._parts.local
        places, whole = places_of(turn, self._parts.fact_of, lambda component: bool(component.certificates))
        placed: dict[tuple[str, str], CertificateFiles] = {}
        for place in places.values():
            for use in place.component.certificates:
                files = local.ask(self._wanted(place, use))
                if files is not None:
                    placed[place.name, use.name] = files
        if whole:
            local.keep_components(set(places))
            for name, place in places.items():
                local.keep(name, {use.name for use in place.component.certificates})
        local.renew()
        self._look_after(places, turn.instances, placed)

    def _wanted(self, place: ComponentPlace, use: CertificateUse) -> Wanted:
        local, application = self._parts.local, place.application
        domain = local.domain
        below = [f"{labels}.{domain}" for labels in use.dns if labels != LOCAL_NAME]
        here = LOCAL_NAME in use.dns
        names = [f"{application}.{domain}", *below]
        if here:
            names.append(LOCAL_NAME)
        user = place.component.container.user.partition(":")[0]
        return Wanted(
            name=use.name,
            dns=tuple(dict.fromkeys(names)),
            addresses=LOOPBACK if here else (),
            uris=(spiffe_id(local.trust_domain, self._parts.site, application),),
            folder=place.name,
            owner=Owner(place.component.image is not None, int(user) if user.isdigit() else None),
        )

    def _look_after(
        self,
        places: Mapping[str, ComponentPlace],
        instances: Mapping[str, InstanceView],
        placed: Mapping[tuple[str, str], CertificateFiles],
    ) -> None:
        """Have what runs with older files take the new ones."""
        outdated: dict[str, str] = {}
        telling = self._parts.telling
        for place in places.values():
            view = instances.get(place.instance)
            if view is None or view.state != "running":
                continue
            for use in place.component.certificates:
                files = placed.get((place.name, use.name))
                if files is None:
                    continue
                told = SecretUse(name=use.name, path=use.name, on_change=use.on_change)
                chosen = InUse(files.mark, files.placed_at)
                if not telling.is_due(place.instance, view, told, chosen):
                    continue
                if use.on_change.restart:
                    outdated[place.instance] = f"certificate {use.name} was renewed"
                else:
                    telling.tell(place.instance, view, told, chosen)
        telling.forget(instances)
        self._outdated = outdated
