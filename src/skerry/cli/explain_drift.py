"""`skerry explain drift`: how far what models see is from what they were judged with, and by what counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from skerry.cli.coverage import coverage_lines, in_words, range_line
from skerry.cli.options import DURATION
from skerry.cli.output import format_data, output_option
from skerry.cli.session import connect
from skerry.cli.text import age, clean, examples
from skerry.spec.api_quality import DriftAnswer, DriftBin, DriftView

_BAR = 30
_WORDS = {"steady": "as in its reference", "drifted": "drifted", "few-samples": "not decided"}
_DISTANCES = {"numbers": "Kolmogorov-Smirnov", "classes": "Jensen-Shannon"}


@click.command(
    epilog=examples(
        "skerry explain drift meter-reader --site zurich",
        "skerry explain drift meter-reader --since 7d -o json",
    )
)
@click.argument("application", metavar="APP")
@click.option("--site", default="", help="At this site alone.")
@click.option(
    "--since", default="1d", show_default=True, type=DURATION, help="How far back, such as 6h or 7d."
)
@output_option("table", "json", "yaml")
def drift(application: str, site: str, since: float, output: str) -> None:
    """Say how far each feature of APP's models is from the reference, and show both distributions with their counts."""
    with connect() as client:
        if site:
            client.site(site)  # one that is not there is not one without figures
        answer = client.drift(application, since_s=since, selector=f"name={site}" if site else "*")
    if output != "table":
        click.echo(format_data(answer, output))
        return
    for line in drift_lines(answer):
        click.echo(clean(line))


def drift_lines(answer: DriftAnswer) -> Iterator[str]:
    """Yield what is known, feature by feature, and whose it is."""
    if not answer.features:
        yield f"Nothing of {answer.app} can be compared: no predictions were told, or its models have no reference."
    for view in answer.features:
        yield from feature_lines(view, answer)
    yield range_line(answer.since, answer.until)
    yield from coverage_lines(answer.coverage, answer.until)


def feature_lines(view: DriftView, answer: DriftAnswer) -> Iterator[str]:
    """Yield what is known of one feature."""
    yield f"{view.feature} of {view.model} in {view.release}: {_WORDS[view.verdict]}; {view.why}"
    yield (
        f"  psi {in_words(view.psi)}, {_DISTANCES[view.kind]} distance {in_words(view.distance)}, "
        f"p {view.p:.2g}; {view.samples} samples against {view.reference_samples} of the reference, "
        f"as of {age(view.as_of, answer.until)}"
    )
    yield from _bin_lines(view.bins)
    yield ""


def _bin_lines(bins: Sequence[DriftBin]) -> Iterator[str]:
    before, after = (
        max(sum(counts), 1) for counts in zip(*((one.reference, one.seen) for one in bins), strict=True)
    )
    width = max(len(one.name) for one in bins)
    most = max(max(one.reference / before, one.seen / after) for one in bins) or 1.0
    for one in bins:
        for name, share, count in (
            (one.name, one.reference / before, one.reference),
            ("", one.seen / after, one.seen),
        ):
            sign = "-" if name else "="
            bar = sign * round(_BAR * share / most)
            yield f"  {name:<{width}}  {bar:<{_BAR}} {100 * share:5.1f} %  {count}"
