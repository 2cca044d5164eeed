"""`skerry metrics`: questions about what hosts and applications measured."""

from __future__ import annotations

import click

from skerry.cli.coverage import coverage_lines, in_words, range_line
from skerry.cli.options import DURATION
from skerry.cli.output import Column, format_data, output_option, print_table, print_views
from skerry.cli.session import connect
from skerry.cli.text import age, examples, now
from skerry.spec.api_telemetry import FigureView, HostTelemetryView, MetricsAnswer, MetricView


@click.group(
    epilog=examples(
        "skerry metrics list",
        "skerry metrics query 'request_seconds_p95{app=\"label-reader\"}' --by site --since 6h",
        "skerry metrics hosts",
    )
)
def metrics() -> None:
    """Ask what hosts and applications measured.

    Every answer says which share of the sites is in it, and how old what they told is.
    """


@metrics.command(
    epilog=examples(
        "skerry metrics query skerry_host_cpu_busy --by site",
        'skerry metrics query \'requests_total_rate{app="label-reader",status=~"5.."}\' --by release --since 1d',
        "skerry metrics query 'request_seconds_p99{region=\"north\"}' --by site -o json",
    )
)
@click.argument("query")
@click.option("--by", default="", metavar="LABEL,...", help="One figure for each value of these labels.")
@click.option(
    "--since", default="1h", show_default=True, type=DURATION, help="How far back, such as 6h or 7d."
)
@click.option("-l", "--selector", default="*", metavar="SELECTOR", help="Of these sites alone.")
@output_option("table", "json", "yaml")
def query(query: str, by: str, since: float, selector: str, output: str) -> None:
    """Answer QUERY: the name of a metric, what of it, and matchers of labels.

    After the name comes what is asked: _p50, _p95, _p99, _mean, _count of distributions; _rate, _total of counters;
    _min, _max, _mean, _last of gauges. Labels are those of the series, and site, host, app, component, release and the
    labels of the site.
    """
    with connect() as client:
        answer = client.query_metrics(query, by=by, since_s=since, selector=selector)
    if output != "table":
        click.echo(format_data(answer, output))
        return
    if answer.figures:
        print_table(answer.figures, _columns(answer))
    else:
        click.echo("no figures", err=True)
    click.echo(range_line(answer.since, answer.until))
    for line in coverage_lines(answer.coverage, answer.until):
        click.echo(line)


@metrics.command(
    "list", epilog=examples("skerry metrics list", "skerry metrics list -l region=north -o json")
)
@click.option("-l", "--selector", default="*", metavar="SELECTOR", help="Of these sites alone.")
@output_option("table", "json", "yaml", "name")
def list_(selector: str, output: str) -> None:
    """List what there is to ask about."""
    with connect() as client:
        views = client.metrics(selector)
    at = now()
    columns = [
        Column[MetricView]("NAME", lambda view: view.name),
        Column[MetricView]("KIND", lambda view: view.kind),
        Column[MetricView]("SERIES", lambda view: str(view.series)),
        Column[MetricView]("SITES", lambda view: str(view.sites)),
        Column[MetricView]("LABELS", lambda view: ", ".join(view.labels), 2),
        Column[MetricView]("AS OF", lambda view: age(view.as_of, at), 1),
    ]
    print_views(views, columns, output, name=lambda view: view.name, empty="no metrics")


@metrics.command(epilog=examples("skerry metrics hosts", "skerry metrics hosts -l region=north -o json"))
@click.option("-l", "--selector", default="*", metavar="SELECTOR", help="Of these sites alone.")
@output_option("table", "json", "yaml", "name")
def hosts(selector: str, output: str) -> None:
    """Say how far each host has told what it measured, and what was given up or lost."""
    with connect() as client:
        views = client.telemetry_hosts(selector)
    at = now()
    columns = [
        Column[HostTelemetryView]("HOST", lambda view: view.host),
        Column[HostTelemetryView]("SITE", lambda view: view.site),
        Column[HostTelemetryView]("TOLD UP TO", lambda view: age(view.newest, at)),
        Column[HostTelemetryView]("DROPPED", lambda view: str(sum(view.losses.dropped.values()))),
        Column[HostTelemetryView]("REFUSED", _refused, 1),
        Column[HostTelemetryView]("LOST BATCHES", lambda view: str(view.missing_batches), 1),
    ]
    print_views(views, columns, output, name=lambda view: view.host, empty="no host has told anything")


def _refused(view: HostTelemetryView) -> str:
    worst = f" (most: {view.losses.worst})" if view.losses.worst else ""
    return f"{view.losses.refused}{worst}"


def _columns(answer: MetricsAnswer) -> list[Column[FigureView]]:
    def of(name: str) -> Column[FigureView]:
        return Column(name.upper(), lambda view: view.group[name])

    names = list(answer.figures[0].group)
    return [
        *map(of, names),
        Column(answer.stat.upper(), lambda view: in_words(view.value)),
        Column("SAMPLES", lambda view: str(view.samples), 2),
        Column("SITES", lambda view: str(view.sites), 1),
        Column("AS OF", lambda view: age(view.as_of, answer.until)),
        Column("OLDEST", lambda view: age(view.oldest, answer.until), 3),
    ]
