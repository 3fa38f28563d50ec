"""The HTML page: one file, nothing from outside, nothing of a name's but its letters."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from gradgauge.formats.render import render
from tests import reports


class Page(HTMLParser):
    """Every tag with its attributes, every text, and whether tags close."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def hostile(value):
    """`value` with a hostile string behind every string the contract does not fix."""
    if isinstance(value, dict):
        fixed = {"schema_version", "object", "format", "state", "verdict", "status", "method"}
        fixed |= {"severity", "category", "role", "source", "comparator", "cost", "verification"}
        fixed |= {"fail_on", "started_at", "finished_at", "id"}
        fixed |= {"origins", "affected", "recommendation_ids", "finding_ids"}
        return {k: v if k in fixed else hostile(v) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(each) for each in value]
    return value + reports.HOSTILE if isinstance(value, str) else value


@pytest.fixture(params=["plain", "hostile"])
def source(request):
    report = reports.report()
    return render(hostile(report) if request.param == "hostile" else report, "html")


def test_it_is_well_formed(source):
    assert Page(source).open == []


def test_it_runs_nothing_and_asks_for_nothing(source):
    tags = Page(source).tags
    loaders = {"script", "img", "link", "iframe", "object", "embed", "base", "form", "image", "use"}
    assert not {tag for tag, _ in tags} & loaders
    names = {name for _, attributes in tags for name in attributes}
    assert not [name for name in names if name.startswith("on")]
    assert not names & {"src", "href", "srcset", "action", "style", "background"}
    style = source[source.index("<style>") : source.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_its_policy_allows_its_own_style_sheet_and_nothing_else(source):
    style = re.search(r"<style>(.*?)</style>", source, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [a["content"] for t, a in Page(source).tags if "http-equiv" in a]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")


def test_hostile_names_bring_no_tag_and_no_control_character():
    def shape(source):  # a curve in another unit has other ticks, all of them drawn with these
        return [tag for tag, _ in Page(source).tags if tag not in {"line", "path", "text"}]

    nasty = render(hostile(reports.report()), "html")
    assert shape(nasty) == shape(render(reports.report(), "html"))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", nasty)


def test_a_severity_is_a_word_and_bars_not_a_colour_alone():
    page = Page(render(reports.report(layers=[]), "html"))
    assert "critical" in page.texts
    assert sum(tag == "rect" for tag, _ in page.tags) == 4


def test_the_chart_is_described_to_those_who_cannot_see_it():
    page = Page(render(reports.report(), "html"))
    ids = {attributes.get("id") for _, attributes in page.tags}
    charts = [attributes for _, attributes in page.tags if attributes.get("role") == "img"]
    assert len(charts) == 2
    assert all(set(each["aria-labelledby"].split()) <= ids for each in charts)
    assert "20 layers from input to loss. sampled: -5.95 to -0.25 decades." in " ".join(page.texts)


def test_what_was_not_analysed_is_said_not_left_blank():
    layers = [reports.layer(0, sampled=reports.unmeasured())]
    coverage = reports.report()["coverage"] | {"unsupported_ops": {"NonZero": 3}}
    texts = Page(render(reports.report(layers=layers, coverage=coverage), "html")).texts
    assert "not supported" in texts
    assert "NonZero" in texts


def test_a_gradient_that_is_exactly_zero_is_shown_as_that():
    zero = reports.sampled(0.0) | {"zero_gradient": True, "log10_grad_act": None}
    assert (
        "exactly 0"
        in Page(render(reports.report(layers=[reports.layer(0, sampled=zero)]), "html")).texts
    )


def test_of_very_many_layers_the_worst_are_shown_and_the_rest_counted():
    calm = {"score": 0, "severity": "none", "category": None, "role": "none", "confidence": 1}
    layers = [reports.layer(i, risk=calm) for i in range(2100)]
    layers[2050] = reports.layer(2050)
    texts = Page(render(reports.report(layers=layers), "html")).texts
    assert any("The worst 2000 of 2100 layers" in text for text in texts)
    assert "/fc.2050/Gemm" in texts
    assert "/fc.2051/Gemm" not in texts
