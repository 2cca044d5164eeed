"""A hub with relays and hosts whose documents are signed, and no relay process: what they hand up, by hand."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from skerry.kit.canonical import encode_canonical
from skerry.ports.relay_records import RelayTokenRecord
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.carrying import Carried, CarryAnswer, CarryRequest, HostAnswer, RelayEnrollRequest
from skerry.spec.metadata import Metadata
from skerry.spec.relay import RELAY_REPORT_TYPE, Relay, RelayReport, RelaySpec, RelayState, RelayView
from skerry.trust.envelope import sign_document
from skerry.trust.keys import SigningKey
from skerry.trust.relay import verify_relay_state
from skerry.trust.tokens import hash_secret
from tests.unit.test_hub_backend import Harbour, Member


def port_key() -> str:
    """Return the public key of a port."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


class Gateway:
    """A relay with its keys, and what it signs and asks."""

    def __init__(self, harbour: Harbour, name: str, *upstreams: str) -> None:
        self.harbour = harbour
        self.name = name
        self.key = SigningKey.generate()
        self.tls_key = port_key()
        self.sequence = 1
        self.generation = 0
        self.state: RelayState | None = None
        spec = RelaySpec(upstreams=upstreams, addresses=(f"{name}.plant.example:8443", "[fd00::7]:8443"))
        self.write(spec)

    def write(self, spec: RelaySpec) -> None:
        """Store the relay's document."""
        document = Relay(metadata=Metadata(name=self.name), spec=spec)
        self.harbour.store.apply_documents(
            sites={}, rollouts=(), audits=(), relays={self.name: encode_canonical(document)}
        )

    def token(self, secret: str, *, ttl_s: float = 3600.0, replaces: bool = False) -> str:
        """Store a token of that secret."""
        now = self.harbour.clock.now()
        record = RelayTokenRecord(
            hash=hash_secret(secret),
            relay=self.name,
            created_at=now,
            expires_at=now + timedelta(seconds=ttl_s),
            replaces=replaces,
        )
        self.harbour.store.add_relay_token(record, self.harbour.audit())
        return secret

    def report(self, **changes: Any) -> RelayReport:
        """Return the newest report, unsigned."""
        now = self.harbour.clock.now()
        report = RelayReport(
            relay=self.name,
            sequence=self.sequence,
            sent_at=now,
            clock=now,
            generation=self.generation,
            tls_key=self.tls_key,
        )
        return msgspec.structs.replace(report, **changes)

    def signed(self, **changes: Any) -> JsonEnvelope:
        """Return the newest report."""
        return sign_document(self.report(**changes), RELAY_REPORT_TYPE, self.key)

    def next(self, **changes: Any) -> JsonEnvelope:
        """Return a fresh report."""
        self.sequence += 1
        return self.signed(**changes)

    def request(self, secret: str, /, **changes: Any) -> RelayEnrollRequest:
        """Return what enrols the relay."""
        request = RelayEnrollRequest(
            secret=secret, relay=self.name, sign_key=self.key.public, proof=self.signed(sequence=1)
        )
        return msgspec.structs.replace(request, **changes)

    async def enroll(self) -> RelayState:
        """Enrol with a fresh token."""
        await self.harbour.backend.relays.reload()
        secret = self.token(f"secret of {self.name} {self.key.key_id}", replaces=True)
        answer = await self.harbour.backend.enroll_relay(self.request(secret))
        return self.take(answer.state)

    def take(self, envelope: JsonEnvelope) -> RelayState:
        """Verify a state as the relay does, and hold it."""
        self.state = verify_relay_state(
            envelope,
            [self.harbour.hub.keys.key.verifier],
            relay=self.name,
            held_generation=self.generation,
            now=self.harbour.clock.now(),
        )
        self.generation = self.state.generation
        return self.state

    async def carry(self, *hosts: Carried, view: RelayView | None = None, **changes: Any) -> CarryAnswer:
        """Hand up what hosts said, and return the answer."""
        envelope = changes.pop("relay") if "relay" in changes else self.next(view=view)
        request = CarryRequest(relay=envelope, hosts=hosts)
        return await self.harbour.backend.carry(msgspec.structs.replace(request, **changes))

    async def fresh_state(self) -> RelayState:
        """Return what is issued to the relay by now."""
        await self.harbour.backend.relays.issuing.issue_marked()
        answer = await self.carry(states={self.name: self.generation})
        if answer.states:
            self.take(answer.states[0])
        assert self.state is not None
        return self.state


def carried(member: Member, *sequences: int, **changes: Any) -> Carried:
    """Return reports of a host as a relay hands them up."""
    reports = tuple(member.signed(number) for number in sequences)
    return msgspec.structs.replace(Carried(key=member.key.key_id, reports=reports), **changes)


def answer_to(answer: CarryAnswer, member: Member) -> HostAnswer:
    """Return what a host is answered."""
    return next(one for one in answer.hosts if one.key == member.key.key_id)
