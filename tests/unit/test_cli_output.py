"""What commands print: tables that fit, text that is safe, ages that are true, data that can be read back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from skerry.cli import portraits
from skerry.cli.diff import diff_lines
from skerry.cli.explain import variant_sentences
from skerry.cli.explain_rollout import rollout_sentences
from skerry.cli.output import Column, format_data, plain_table, terminal_table
from skerry.cli.resources import RESOURCES, resource_of
from skerry.cli.rollout_watching import change_line, changes_of
from skerry.cli.text import age, clean, until
from skerry.cli.wave_preview import default_name
from skerry.kit.errors import Missing, Rejected
from skerry.kit.ids import is_name
from skerry.spec.api import Change, EventView, HostView, RolloutView, SiteView
from skerry.spec.api_rollout import SiteProgress
from skerry.spec.facts import Fact
from skerry.spec.report import ApplicationView, ComponentView, Event, VariantChoice

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
DIGEST = "sha256:" + "ab" * 32


class Row(msgspec.Struct, frozen=True):
    name: str
    why: str
    extra: str = "x" * 20


COLUMNS = (
    Column[Row]("NAME", lambda row: row.name),
    Column[Row]("WHY", lambda row: row.why, 1),
    Column[Row]("EXTRA", lambda row: row.extra, 2),
)

HOST = HostView(
    name="press-3",
    site="zurich",
    enrolled_at=NOW - timedelta(days=3),
    last_seen_at=NOW - timedelta(minutes=3, seconds=20),
    presence="silent",
    sequence=7,
    generation_held=4,
    generation_wanted=5,
    observed_at=NOW - timedelta(minutes=4),
    applications={
        "reader": ApplicationView(
            phase="running",
            release="reader@1.0.0",
            refused={DIGEST: "not ready within 5m"},
            components={
                "reader": ComponentView(state="ready", restarts=2, endpoints={"http": "127.0.0.1:4000"})
            },
            choices=(
                VariantChoice(
                    model="digits",
                    version="1.0.0",
                    variant="int8",
                    why=("fp32: needs memory >= 1GiB, has 512.0 MiB", "int8: fits (arch x86_64)"),
                ),
            ),
        )
    },
    facts={"memory_bytes": Fact(value=512 << 20, source="/proc/meminfo")},
)
ROLLOUT = RolloutView(
    name="spring",
    document={"spec": {"sites": "region=north"}},
    release="reader@1.1.0",
    state="running",
    why="1 applying, 1 offered",
    created_at=NOW - timedelta(hours=1),
    created_by="eva",
    sites={
        "bern": SiteProgress(state="offered", why="queued: press-1 has not fetched it yet", as_of=NOW),
        "zurich": SiteProgress(state="applying", why="press-3: starting", previous="reader@1.0.0"),
    },
)


def test_a_plain_table_is_aligned_and_complete() -> None:
    text = plain_table([Row("a", "long " * 40), Row("longer", "")], COLUMNS)
    head, first, second = text.splitlines()
    assert head.index("WHY") == first.index("long") == second.index("-") == len("longer") + 2
    assert ("long " * 40).strip() in first
    assert not any(line.endswith(" ") for line in text.splitlines())


@given(
    st.lists(st.builds(Row, st.text(max_size=30), st.text(max_size=60)), min_size=1, max_size=5),
    st.integers(10, 120),
)
def test_a_table_on_a_terminal_never_exceeds_its_width(rows: list[Row], width: int) -> None:
    for line in terminal_table(rows, COLUMNS, width=width, coloured=False).splitlines():
        assert cell_len(line) <= width


def test_the_least_needed_column_goes_first_and_cells_shrink_last() -> None:
    rows = [Row("a-site", "because of this")]
    assert "EXTRA" in terminal_table(rows, COLUMNS, width=80, coloured=False)
    assert terminal_table(rows, COLUMNS, width=30, coloured=False).split("\n")[0].split() == ["NAME", "WHY"]
    narrow = terminal_table([Row("a-site-with-a-name", "")], COLUMNS, width=10, coloured=False)
    assert narrow.split("\n")[0].split() == ["NAME"]
    assert "…" in narrow


def test_colours_are_there_only_when_wanted() -> None:
    rows = [Row("online", "x")]
    assert "\x1b[" in terminal_table(rows, COLUMNS, width=80, coloured=True)
    assert "\x1b" not in terminal_table(rows, COLUMNS, width=80, coloured=False)


def test_what_a_host_says_cannot_steer_the_terminal() -> None:
    evil = Row("\x1b[2Jname", "[red]markup[/red] \x9b31m \u202eback\r\nnext\tline")
    for text in (plain_table([evil], COLUMNS), terminal_table([evil], COLUMNS, width=200, coloured=False)):
        assert not set(text) & {"\x1b", "\x9b", "\u202e", "\r", "\t"}
        assert "[red]markup[/red]" in text
        assert len(text.strip().splitlines()) == 2


@given(st.text())
def test_cleaned_text_is_one_line_without_control_characters(text: str) -> None:
    found = clean(text)
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in found)


@pytest.mark.parametrize(
    ("seconds", "text"),
    (
        (0, "just now"),
        (-5, "just now"),
        (3, "3s ago"),
        (200, "3m ago"),
        (3 * 3600 + 59, "3h ago"),
        (90 * 86400, "90d ago"),
    ),
)
def test_ages_are_told_in_their_largest_unit(seconds: float, text: str) -> None:
    assert age(NOW - timedelta(seconds=seconds), NOW) == text


def test_what_never_was_or_never_ends_is_said_so() -> None:
    assert age(None, NOW) == until(None, NOW) == "never"
    assert until(NOW - timedelta(seconds=1), NOW) == "expired"
    assert until(NOW + timedelta(hours=3), NOW) == "in 3h"


def test_json_and_yaml_are_the_views_of_the_api() -> None:
    for output, load in (("json", json.loads), ("yaml", yaml.safe_load)):
        again = msgspec.convert(load(format_data([HOST], output)), type=list[HostView])
        assert again == [HOST]


def test_every_noun_has_a_table_and_is_found_by_both_its_numbers() -> None:
    for resource in RESOURCES:
        assert resource_of(resource.singular) is resource_of(resource.plural) is resource
        ranks = [column.rank for column in resource.columns(NOW)]
        assert ranks[0] == 0, "the name stays"
    assert resource_of("nothing") is None


def test_a_host_is_described_with_ages_choices_and_refusals() -> None:
    events = [
        EventView(
            id=1, host="press-3", site="zurich", received_at=NOW, event=Event(at=NOW, kind="release.refused")
        )
    ]
    text = "\n".join(portraits.host_lines(HOST, events, at=NOW))
    assert "silent, last seen 3m ago" in text
    assert "queued: holds generation 4" in text
    assert "as of 4m ago" in text
    assert "fp32: needs memory >= 1GiB" in text
    assert "refused release abababababab: not ready within 5m" in text
    assert "component reader: ready, 2 restarts" in text
    assert "512.0 MiB  [/proc/meminfo]" in text
    assert "release.refused" in text


def test_a_site_never_seen_is_not_called_failed() -> None:
    view = SiteView(
        name="bern",
        labels={},
        document={},
        generation=0,
        hosts=0,
        hosts_online=0,
        last_seen_at=None,
        presence="never",
    )
    text = "\n".join(portraits.site_lines(view, [], [], at=NOW))
    assert "never seen" in text
    assert "failed" not in text


def test_a_choice_of_variant_is_explained_in_sentences() -> None:
    text = "\n".join(variant_sentences(HOST, "reader", at=NOW))
    assert "As of 4m ago, press-3 says" in text
    assert "it uses the variant int8" in text
    assert "fp32: needs memory" in text
    with pytest.raises(Missing, match="has not reported an application writer"):
        list(variant_sentences(HOST, "writer", at=NOW))


def test_a_rollout_is_explained_site_by_site() -> None:
    text = "\n".join(rollout_sentences(ROLLOUT, "", at=NOW))
    assert "brings reader@1.1.0 to 2 sites; it was started 1h ago by eva." in text
    assert (
        "bern has been offered the release, but no host there has said that it knows (as of just now)" in text
    )
    assert "Before, it ran reader@1.0.0." in text
    assert list(rollout_sentences(ROLLOUT, "zurich", at=NOW)) == [
        "zurich is at work on it: press-3: starting. Before, it ran reader@1.0.0.",
        "Rollout spring is running: 1 applying, 1 offered.",
    ]
    with pytest.raises(Missing, match="does not concern site basel"):
        list(rollout_sentences(ROLLOUT, "basel", at=NOW))


def test_following_a_rollout_says_only_what_has_changed() -> None:
    assert len(list(changes_of(None, ROLLOUT, NOW))) == 3
    assert list(changes_of(ROLLOUT, ROLLOUT, NOW)) == []
    bern = SiteProgress(state="succeeded", why="every host runs it")
    later = msgspec.structs.replace(ROLLOUT, sites={**ROLLOUT.sites, "bern": bern})
    (change,) = changes_of(ROLLOUT, later, NOW)
    assert change_line(change) == "bern: succeeded: every host runs it"
    assert (change.kind, change.before, change.at) == ("site", "offered", NOW)
    zurich = msgspec.structs.replace(ROLLOUT.sites["zurich"], why="press-3: probing")
    later = msgspec.structs.replace(ROLLOUT, sites={**ROLLOUT.sites, "zurich": zurich})
    assert [change_line(one) for one in changes_of(ROLLOUT, later, NOW)] == [
        "zurich: applying: press-3: probing"
    ]


@pytest.mark.parametrize(
    "release", ("reader@1.0.0", "reader@1.0.0+Build_7", "a" * 63 + "@1", "a@" + "9." * 30 + "9")
)
def test_the_name_a_rollout_gets_is_a_name_and_always_the_same(release: str) -> None:
    assert is_name(default_name(release))
    assert default_name(release) == default_name(release)


def test_a_rollout_of_no_release_is_refused() -> None:
    with pytest.raises(Rejected, match="not a release"):
        default_name("reader")


def test_a_diff_shows_only_what_differs_whatever_the_order_of_fields() -> None:
    before = {"kind": "Site", "metadata": {"name": "a"}, "spec": {"time_zone": "UTC"}}
    after = {"spec": {"time_zone": "Europe/Zurich"}, "metadata": {"name": "a"}, "kind": "Site"}
    lines = list(diff_lines(Change(kind="Site", name="a", action="update", before=before, after=after)))
    changed = [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]
    assert changed == ["-  time_zone: UTC", "+  time_zone: Europe/Zurich"]
    same = Change(kind="Site", name="a", action="unchanged", before=before, after=before)
    assert list(diff_lines(same)) == []
