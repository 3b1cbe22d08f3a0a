"""What is rendered is what prometheus_client reads, whatever the names, labels and values; rendered again, it is the same."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics_exposition
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from aimd.adapters.metrics.family import Descriptor, as_metric
from aimd.adapters.metrics.render import SPARE, Renderer
from aimd.domain.metering import Histogram as Counted

TEXTS = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12)
VALUES = st.one_of(st.integers(0, 1 << 62), st.floats(allow_nan=False), st.just(math.inf))
COUNTS = st.one_of(st.integers(0, 1 << 62), st.floats(0, 1e18))
BOUNDS = (0.001, 1.0, 120.0)


def series(values, size):
    return st.dictionaries(st.tuples(*[TEXTS] * size), values, max_size=4).map(lambda found: list(found.items()))


def histograms():
    counts = st.lists(st.integers(0, 1 << 40), min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1)
    return st.builds(lambda c, s: Counted(tuple(sorted(c)), s), counts, st.floats(0, 1e9))


@st.composite
def families(draw):
    """One of each kind, in any order; OpenMetrics forbids negative counters."""
    words = draw(TEXTS.filter(lambda text: text == text.strip()))
    found = [
        Descriptor("a_seconds", "gauge", words, ("one", "two")).of(draw(series(VALUES, 2))),
        Descriptor("b", "counter", words, ("one",)).of(draw(series(COUNTS, 1))),
        Descriptor("c", "info", words, ("one", "two")).of(draw(series(st.just(1), 2))),
        Descriptor("d_seconds", "histogram", words, ("one",), BOUNDS).histograms(draw(series(histograms(), 1))),
        Descriptor("e", "gauge", words).of([((), draw(VALUES))]),
    ]
    return draw(st.permutations(found))


class Given:
    """A collector of these metrics."""

    def __init__(self, metrics):
        self.metrics = metrics

    def collect(self):
        return self.metrics


def samples(metrics):
    """What was read, to be compared: order does not matter, nor whether le comes first."""
    return sorted(
        (sample.name, sorted(sample.labels.items()), repr(float(sample.value)))
        for metric in metrics
        for sample in metric.samples
    )


def heads(metrics):
    return sorted((metric.name, metric.type, metric.documentation) for metric in metrics)


@given(families())
def test_text_is_read_as_it_was_meant(found):
    page = Renderer().render(found, openmetrics=False).decode()
    ours = list(text_string_to_metric_families(page))
    theirs = list(text_string_to_metric_families(generate_latest(Given([as_metric(one) for one in found])).decode()))
    assert samples(ours) == samples(theirs)
    assert heads(ours) == heads(theirs)


@given(families())
def test_openmetrics_is_read_as_it_was_meant(found):
    found = [one for one in found if one.samples or one.histograms]
    page = Renderer().render(found, openmetrics=True).decode()
    ours = list(openmetrics_parser.text_string_to_metric_families(page))
    metrics = [as_metric(one) for one in found]
    theirs = list(
        openmetrics_parser.text_string_to_metric_families(
            openmetrics_exposition.generate_latest(Given(metrics)).decode()
        )
    )
    assert samples(ours) == samples(theirs)
    assert heads(ours) == heads(theirs)
    assert sorted((one.name, one.unit) for one in ours) == sorted((one.name, one.unit) for one in theirs)


@given(st.lists(families(), min_size=1, max_size=4))
def test_what_is_kept_does_not_change_what_is_rendered(rounds):
    renderer = Renderer()
    for found in rounds:
        for openmetrics in (False, True):
            assert renderer.render(found, openmetrics=openmetrics) == Renderer().render(found, openmetrics=openmetrics)


def test_series_that_are_gone_are_neither_shown_nor_kept():
    renderer, what = Renderer(), Descriptor("a", "gauge", "words", ("one",))
    for number in range(20):
        page = renderer.render([what.of([((f"{number}-{each}",), each) for each in range(20)])], openmetrics=False)
        assert page.count(b"\na{") == 20
    assert len(renderer._kept["a"]) <= 3 * 20 + SPARE


@pytest.mark.parametrize("openmetrics", [False, True])
def test_instruments_of_prometheus_client_are_rendered_too(openmetrics):
    registry = CollectorRegistry()
    Counter("events", "Events.", ("kind",), registry=registry).labels('a "kind"').inc(2)
    Gauge("level_ratio", "Level.", registry=registry).set(math.nan)
    Histogram("wait_seconds", "Wait.", ("kind",), buckets=(0.1, 1), registry=registry).labels("a").observe(0.5)
    page = Renderer().render(registry.collect(), openmetrics=openmetrics).decode()
    parse = openmetrics_parser.text_string_to_metric_families if openmetrics else text_string_to_metric_families
    expected = [
        entry
        for entry in samples(text_string_to_metric_families(generate_latest(registry).decode()))
        if not entry[0].endswith("_created")
    ]
    assert samples(parse(page)) == expected


def test_the_numbers_that_are_not_finite():
    what = Descriptor("a", "gauge", "words", ("one",))
    numbers = [(("p",), math.inf), (("m",), -math.inf), (("n",), math.nan)]
    page = Renderer().render([what.of(numbers)], openmetrics=False).decode()
    assert page.splitlines()[2:] == ['a{one="p"} +Inf', 'a{one="m"} -Inf', 'a{one="n"} NaN']


def test_help_is_escaped_as_each_format_has_it():
    what = Descriptor("a", "gauge", 'a "word", a \\ and\na line')
    text, openmetrics = (
        Renderer().render([what.of([])], openmetrics=kind).decode().splitlines()[0] for kind in (False, True)
    )
    assert text == '# HELP a a "word", a \\\\ and\\na line'
    assert openmetrics == '# HELP a a \\"word\\", a \\\\ and\\na line'
