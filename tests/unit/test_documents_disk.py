"""A Site's disk budget as people write it: what is wrong is said with its place, and hosts get numbers."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.delivery.budget import site_policy
from skerry.kit.canonical import encode_canonical
from skerry.kit.quantities import SIZE_PATTERN, parse_size
from skerry.spec.desired import DiskPolicy, SitePolicy
from skerry.spec.parsing import parse_documents
from skerry.spec.problems import DocumentRejected
from skerry.spec.site import Site, SiteSpec

pytestmark = pytest.mark.delivery


def site(spec: str) -> SiteSpec:
    text = f"apiVersion: skerry/v1\nkind: Site\nmetadata: {{name: harbour}}\nspec: {spec}"
    (parsed,) = parse_documents(text)
    assert isinstance(parsed.document, Site)
    return parsed.document.spec


def problems(spec: str) -> list[str]:
    with pytest.raises(DocumentRejected) as caught:
        site(spec)
    return [f"{problem.path}: {problem.message} ({problem.hint})" for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("disk", "policy"),
    (
        ("{keep_free: 1GiB, blobs: 20GiB}", DiskPolicy(keep_free=1 << 30, blobs=20 << 30)),
        ("{keep_free: 500MB}", DiskPolicy(keep_free=500_000_000)),
        ("{blobs: 1.5GiB}", DiskPolicy(blobs=3 << 29)),
        ("{keep_free: 0B, blobs: 1MiB}", DiskPolicy(keep_free=0, blobs=1 << 20)),
        ("{}", DiskPolicy()),
    ),
)
def test_a_disk_budget_reaches_hosts_in_bytes_and_is_no_share(disk: str, policy: DiskPolicy) -> None:
    spec = site(f"{{disk: {disk}}}")
    assert site_policy(spec, hosts=1).disk == policy
    assert site_policy(spec, hosts=4).disk == policy


def test_a_site_that_says_nothing_of_its_disks_has_the_document_it_had_before() -> None:
    assert encode_canonical(site_policy(site("{host_network: true}"), hosts=2)) == b'{"host_network":true}'


def test_a_disk_policy_is_read_back_as_it_was_sent() -> None:
    policy = site_policy(site("{disk: {keep_free: 1GiB, blobs: 20GiB}, link: {rate: 1MiB/s}}"), hosts=3)
    assert msgspec.json.decode(encode_canonical(policy), type=SitePolicy) == policy


@pytest.mark.parametrize(
    ("disk", "expected"),
    (
        ("{keep_free: 1G}", "spec.disk.keep_free: expected a size such as 512MiB"),
        ("{keep_free: 10%}", "spec.disk.keep_free: expected a size such as 512MiB"),
        (
            "{keep_free: 2000TiB}",
            "spec.disk.keep_free: expected at most 1024.0 TiB, got 2000TiB (each host keeps",
        ),
        ("{blobs: 20}", "spec.disk.blobs: expected text, got the number 20 (expected a size such as 512MiB"),
        ("{blobs: 0B}", "spec.disk.blobs: expected 1.0 MiB to 1024.0 TiB, got 0B (room for what runs"),
        ("{blobs: 100KiB}", "spec.disk.blobs: expected 1.0 MiB to 1024.0 TiB, got 100KiB"),
        ("{blobs: 2000TiB}", "spec.disk.blobs: expected 1.0 MiB to 1024.0 TiB, got 2000TiB"),
        ("{blob: 1GiB}", "spec.disk.blob: unknown field blob (did you mean blobs?)"),
    ),
)
def test_what_cannot_hold_is_refused_with_its_place_and_what_to_do(disk: str, expected: str) -> None:
    (found,) = problems(f"{{disk: {disk}}}")
    assert found.startswith(expected)


def test_all_that_is_wrong_is_said_at_once() -> None:
    found = problems("{disk: {keep_free: 2000TiB, blobs: 1KiB}, link: {per_day: 1KiB}}")
    assert sorted(problem.split(":")[0] for problem in found) == [
        "spec.disk.blobs",
        "spec.disk.keep_free",
        "spec.link.per_day",
    ]


@given(st.from_regex(SIZE_PATTERN, fullmatch=True).filter(lambda text: len(text.strip()) < 20))
def test_every_size_that_is_taken_reaches_hosts_as_it_was_written(text: str) -> None:
    text = text.strip()
    try:
        spec = site(f"{{disk: {{keep_free: {text}, blobs: {text}}}}}")
    except DocumentRejected:
        assert not 1 << 20 <= parse_size(text) <= 1 << 50
    else:
        assert site_policy(spec, hosts=1).disk == DiskPolicy(
            keep_free=parse_size(text), blobs=parse_size(text)
        )
