"""Topics and brokers as people write them: what is wrong is said with its place."""

from __future__ import annotations

import pytest

from skerry.delivery.budget import site_policy
from skerry.kit.canonical import encode_canonical
from skerry.spec.application import Application
from skerry.spec.parsing import parse_documents
from skerry.spec.problems import DocumentRejected
from skerry.spec.site import Site
from skerry.spec.topics import TopicsSpec

PROCESS = "{name: main, command: [run]}"
BOX = "{name: main, image: {source: docker-archive:app.tar}}"
LONE_BOX = "{name: main, image: {source: docker-archive:app.tar}, container: {network: none}}"


def topics(written: str, component: str = PROCESS) -> TopicsSpec:
    text = (
        "apiVersion: skerry/v1\nkind: Application\nmetadata: {name: line}\n"
        f"spec: {{version: 1.0.0, topics: {written}, components: [{component}]}}"
    )
    (parsed,) = parse_documents(text)
    assert isinstance(parsed.document, Application)
    return parsed.document.spec.topics


def problems(written: str, component: str = PROCESS) -> list[str]:
    with pytest.raises(DocumentRejected) as caught:
        topics(written, component)
    return [f"{problem.path}: {problem.message} ({problem.hint})" for problem in caught.value.problems]


def test_topics_are_patterns_to_publish_and_to_read() -> None:
    found = topics("{publish: [plant/line1/#], subscribe: [plant/+/orders, clock]}")
    assert found == TopicsSpec(publish=("plant/line1/#",), subscribe=("plant/+/orders", "clock"))
    assert found.is_used and not topics("{}").is_used
    assert topics("{publish: [a]}", BOX).is_used


@pytest.mark.parametrize("pattern", ("'#'", "+/a", "a//b", "$SYS/a", "a.b", "a/#/b"))
def test_what_is_no_pattern_is_said_in_words(pattern: str) -> None:
    (problem,) = problems(f"{{publish: [ok], subscribe: [{pattern}]}}")
    assert problem.startswith("spec.topics.subscribe[0]: expected a topic such as plant/line1/count")


def test_each_pattern_is_written_once() -> None:
    assert len(problems("{publish: [a, a], subscribe: [b, b]}")) == 2


def test_an_application_none_of_whose_components_reaches_the_bus_is_refused() -> None:
    (problem,) = problems("{publish: [a]}", LONE_BOX)
    assert problem.startswith("spec.topics: no component can reach the bus")
    assert "network: none" in problem
    assert not topics("{}", LONE_BOX).is_used


def test_a_site_names_its_broker_and_one_that_does_not_has_the_document_it_had_before() -> None:
    text = "apiVersion: skerry/v1\nkind: Site\nmetadata: {name: harbour}\nspec: "
    (stated,) = parse_documents(f"{text}{{broker: mosquitto}}")
    (silent,) = parse_documents(f"{text}{{}}")
    assert isinstance(stated.document, Site) and isinstance(silent.document, Site)
    assert site_policy(stated.document.spec, hosts=1).broker == "mosquitto"
    assert b"broker" not in encode_canonical(site_policy(silent.document.spec, hosts=1))
    with pytest.raises(DocumentRejected):
        parse_documents(f"{text}{{broker: amqp}}")
