"""Secrets that a host makes for itself: kept, rotated without a link, told of by public halves, and wiped."""

from __future__ import annotations

import base64
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from skerry.agent.secret_files import Owner, SecretFiles
from skerry.agent.vault import Vault
from skerry.spec.application import HttpProbe, OnSecretChange, Port, SecretUse
from skerry.spec.report import MadeSecret
from skerry.spec.secret import Making, SecretOrder
from skerry.testing.faults import FaultPlan, PowerCut
from skerry.testing.memory import MemoryAgentStore
from tests.unit.test_host_secrets import PASSWORD, Host, later

pytestmark = pytest.mark.secrets

DAY = 86400


def order(version: int = 1, *, every: int | None = None, **more: Any) -> SecretOrder:
    making = more.pop("making", Making(kind="keypair"))
    return SecretOrder(
        id=f"{version:032x}", name="password", version=version, making=making, rotate_every_s=every, **more
    )


@pytest.fixture
async def host(tmp_path: Path) -> AsyncGenerator[Host]:
    made = Host(tmp_path)
    yield made
    await made.agent.close()


async def ordered(host: Host, *orders: SecretOrder, uses: SecretUse = PASSWORD, **more: Any) -> None:
    ports = (Port(name="http"),) if uses.on_change.http else ()
    one = host.release("1", uses, ports=ports)
    await host.desire({"1": one}, secret_orders={"edge": orders}, **more)


def made(host: Host) -> list[MadeSecret]:
    return list(host.agent.observed.made_secrets)


def public_of(pem: str | None) -> str:
    assert pem is not None
    private = load_pem_private_key(pem.encode(), password=None)
    whole = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(whole).decode()


@pytest.mark.rule("SECRET-6")
async def test_a_host_makes_its_own_and_only_the_public_half_is_told(host: Host) -> None:
    await ordered(host, order())
    await host.agent.until(lambda: host.agent.runs("1"))
    value = host.file()
    (told,) = made(host)
    assert told.public == public_of(value)
    assert (told.name, told.version, told.round, told.used, told.not_before) == ("password", 1, 1, True, None)
    assert host.agent.observed.secrets == {"password": 1}
    assert value is not None
    secret_part = value.splitlines()[1].encode()
    await host.agent.steps()
    sent = host.events() + repr(host.agent.observed) + repr(host.agent.secrets) + repr(host.link.reports)
    assert "secret.made" in sent
    assert "password 1, made here as number 1" in sent
    assert secret_part not in host.on_disk() + sent.encode()
    await host.restart()
    await host.agent.until(lambda: host.file() == value)
    await host.agent.steps(2)
    assert [one.round for one in made(host)] == [1], "nothing is made twice"


@pytest.mark.rule("SECRET-3", "SECRET-6")
async def test_the_next_one_is_told_ahead_and_used_from_its_time_on_without_a_link_and_after_reboots(
    host: Host,
) -> None:
    await ordered(host, order(every=10 * DAY))
    await host.agent.until(lambda: host.agent.runs("1"))
    first = host.file()
    await host.agent.until(lambda: len(made(host)) == 2)
    now, then = made(host)
    assert (now.used, then.used, then.round) == (True, False, 2)
    assert then.not_before is not None
    for number in (3, 4, 5):
        await host.restart()
        host.agent.clock.advance(10 * DAY + 60)
        await host.agent.until(lambda: [one.round for one in made(host)][-1:] == [number])  # noqa: B023 - awaited at once
        assert public_of(host.file()) == then.public, "it is the one that was told of"
        assert host.file("password.previous") == first
        first, then = host.file(), made(host)[-1]
    host.agent.clock.advance(3700)
    await host.agent.until(lambda: host.file("password.previous") is None)
    assert len(made(host)) == 2, "what nobody needs is not kept"


async def test_the_next_one_is_made_with_the_document_and_the_database_lost(host: Host) -> None:
    await ordered(host, order(every=10 * DAY))
    await host.agent.until(lambda: host.agent.runs("1") and len(made(host)) == 2)
    first = host.file()
    host.store = MemoryAgentStore()
    await host.restart(wiped=False)
    host.agent.clock.advance(11 * DAY)
    await host.agent.until(lambda: host.file() not in (None, first))


async def test_a_later_version_takes_its_place_made_or_sealed_and_is_made_ahead(host: Host) -> None:
    await ordered(host, order(1, every=10 * DAY), order(2, not_before=later(600)))
    await host.agent.until(lambda: host.agent.runs("1"))
    first = host.file()
    await host.agent.until(lambda: len(made(host)) == 3)
    (ahead,) = (one for one in made(host) if one.version == 2)
    assert ahead.public
    host.agent.clock.advance(600)
    await host.agent.until(lambda: host.file() != first)
    assert public_of(host.file()) == ahead.public
    assert host.agent.observed.secrets == {"password": 2}
    await host.desire({"1": host.release("1", PASSWORD)}, host.seal("given", 3))
    await host.agent.until(lambda: host.file() == "given")
    host.agent.clock.advance(20 * DAY)
    await host.agent.steps(2)
    assert host.file() == "given"
    assert made(host) == [], "no more is made of what has been left behind"


@pytest.mark.rule("SECRET-4")
async def test_a_version_that_was_revoked_is_wiped_with_all_that_was_made_of_it_and_made_no_more(
    host: Host,
) -> None:
    await ordered(host, order(1, every=DAY))
    await host.agent.until(lambda: host.agent.runs("1") and len(made(host)) == 2)
    first = host.file()
    await ordered(host, order(1, every=DAY), order(2), revoked_secrets=(order(1).id,))
    await host.agent.until(lambda: host.file() not in (None, first))
    assert host.file("password.previous") is None
    assert [one.version for one in made(host)] == [2]
    await ordered(host, order(1, every=DAY))
    await host.agent.steps(2)
    assert [one.version for one in made(host)] == [2], "an older document brings it back nowhere"


@pytest.mark.rule("SECRET-6")
async def test_what_was_made_is_wiped_when_the_application_leaves_and_made_anew_when_it_comes_back(
    host: Host,
) -> None:
    await ordered(host, order(making=Making(kind="random", length=20, alphabet="hex")))
    await host.agent.until(lambda: host.agent.runs("1"))
    first = host.file()
    assert first is not None
    assert len(first) == 20
    await host.desire({})
    await host.agent.until(lambda: not host.agent.observed.applications)
    await host.agent.steps(2)
    assert list((host.data / "memory").iterdir()) == []
    assert made(host) == []
    await ordered(host, order(making=Making(kind="random", length=20, alphabet="hex")))
    await host.agent.until(lambda: host.agent.runs("1"))
    assert host.file() not in (None, first)


async def test_a_component_is_told_of_the_next_one_over_http(host: Host) -> None:
    change = OnSecretChange(http=HttpProbe(port="http", path="/reload"))
    use = SecretUse(name="password", path="password", on_change=change)
    await ordered(host, order(every=DAY), uses=use)
    await host.agent.until(lambda: host.agent.runs("1") and len(made(host)) == 2)
    (run,) = host.agent.runtime.host.runs.values()
    prober = host.agent.prober
    prober.answer(int(run.spec.labels["port.http"]), "POST /reload", None)
    host.agent.clock.advance(DAY)
    await host.agent.until(lambda: any(path == "POST /reload" for *_, path in prober.asked))


@pytest.mark.rule("SECRET-3")
@pytest.mark.parametrize("when", ("before", "after"))
@pytest.mark.parametrize("step", (1, 2, 3))
async def test_a_power_cut_at_any_step_leaves_a_value_that_was_told_of(
    host: Host, step: int, when: Any
) -> None:
    await ordered(host, order(every=DAY))
    await host.agent.until(lambda: host.agent.runs("1") and len(made(host)) == 2)
    first, then = made(host)
    plan = FaultPlan()

    class CutVault(Vault):
        def save(self, state: Any) -> None:
            if state != self.state:
                with plan.around("save"):
                    super().save(state)

    class CutFiles(SecretFiles):
        def _replace(self, path: Path, content: bytes, owner: Owner) -> None:
            with plan.around("replace"):
                super()._replace(path, content, owner)

    parts = host.agent.secrets._parts  # pyright: ignore[reportPrivateUsage]
    parts.vault.__class__, parts.files.__class__ = CutVault, CutFiles
    host.agent.clock.advance(DAY)
    plan.kill(nth=step, when=when)
    with pytest.raises(PowerCut):
        await host.agent.steps()
    assert public_of(host.file()) in (first.public, then.public)
    plan.restore_power()
    await host.restart()
    await host.agent.steps(1)
    assert public_of(host.file()) in (first.public, then.public)
    await host.agent.until(lambda: public_of(host.file()) == then.public)
    await host.agent.until(lambda: [one.round for one in made(host) if not one.used][-1:] == [3])


async def test_a_vault_copied_to_another_host_does_not_open_there(host: Host, tmp_path: Path) -> None:
    await ordered(host, order())
    await host.agent.until(lambda: host.agent.runs("1"))
    other = Host(tmp_path / "other")
    try:
        (other.data / "vault").mkdir(parents=True)
        shutil.copy(host.data / "vault" / "vault.bin", other.data / "vault" / "vault.bin")
        await other.agent.steps(2)
        assert "secret.vault_lost" in other.events()
        assert other.agent.secrets._parts.vault.state.entries == {}  # pyright: ignore[reportPrivateUsage]
    finally:
        await other.agent.close()


async def test_versions_that_wait_for_their_time_are_told(host: Host) -> None:
    one = host.release("1", PASSWORD)
    await host.desire({"1": one}, host.seal("old", 1), host.seal("new", 2, not_before=later(600)))
    await host.agent.until(lambda: host.agent.runs("1"))
    assert host.agent.observed.secrets_next == {"password": (2,)}
    host.agent.clock.advance(601)
    await host.agent.until(lambda: host.agent.observed.secrets == {"password": 2})
    assert host.agent.observed.secrets_next == {}
