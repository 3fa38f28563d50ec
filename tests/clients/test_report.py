"""A report in the hands of a program: tables, pictures, other formats, what changed."""

import json
from html.parser import HTMLParser

import pytest

import gradgauge_client as gg
from gradgauge.formats.render import render, render_all
from gradgauge.schema.columns import columns
from gradgauge.schema.report import Report as Told
from gradgauge_client import Client, _engine
from gradgauge_client._report import reported
from tests import reports
from tests.clients import fake_service
from tests.clients.fake_service import Answer


@pytest.fixture
def kept(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(reports.report()))
    return gg.Report.read(path)


@pytest.fixture
def without_package(monkeypatch):
    monkeypatch.setattr(_engine, "entry_points", lambda **_: [])


def test_a_kept_report_is_read_and_written_as_the_command_writes_it(kept):
    sent = Told.model_validate(reports.report())
    assert Told.model_validate_json(kept.to_json()) == sent


def test_one_from_before_layers_had_reads_is_read(tmp_path):
    old = reports.report()
    for layer in old["layers"]:
        del layer["reads"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    read = gg.Report.read(str(tmp_path / "old.json"))
    assert [layer.reads for layer in read.layers] == [[] for _ in old["layers"]]


@pytest.mark.parametrize("text", ["{}", "[]", "not JSON", b"\xff\xfe\xfa", '{"layers": 3}'])
def test_what_is_no_report_is_refused_by_its_path(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(gg.GradgaugeError, match=r"other\.json holds no report"):
        gg.Report.read(path)


def test_the_package_writes_every_format_where_it_is_installed(kept):
    held = Told.model_validate(reports.report())
    assert kept.to_html() == render(held, "html")
    assert kept.to_markdown() == render(held, "markdown")
    assert kept.to_sarif() == render(held, "sarif")
    assert kept.to_junit("models/net.onnx") == render_all([held], ["models/net.onnx"], "junit")
    assert kept.to_sarif("models/net.onnx") != kept.to_sarif()


@pytest.mark.usefixtures("without_package")
def test_without_the_package_the_service_writes_it(tmp_path):
    with fake_service.running() as service, Client(service.url) as client:
        (tmp_path / "net.onnx").write_bytes(b"\x08 content")
        service.outcomes["net.onnx"] = {"report": reports.report()}
        with pytest.raises(gg.GateFailed) as failed:
            client.check(tmp_path / "net.onnx")
        report = failed.value.report
        assert report.to_html() == f"<html of {report.id}>"
        service.script("GET /v1/analyses/ana_1/report", Answer(raw=b"<testsuites/>"))
        assert report.to_junit("m/net.onnx") == "<testsuites/>"
        assert service.seen[-1].query == {"format": "junit", "path": "m/net.onnx"}


@pytest.mark.usefixtures("without_package")
def test_a_gate_that_the_caller_decided_is_sent_along(tmp_path):
    with fake_service.running() as service, Client(service.url) as client:
        (tmp_path / "net.onnx").write_bytes(b"\x08 content")
        report = client.check(tmp_path / "net.onnx", fail_on="never")
        service.script("POST /v1/reports:render", Answer(raw=b"<html>"))
        assert report.to_sarif("m/net.onnx") == "<html>"
        asked = json.loads(service.seen[-1].body)
        assert (asked["format"], asked["paths"]) == ("sarif", ["m/net.onnx"])
        assert asked["reports"][0]["gate"]["fail_on"] == "never"


@pytest.mark.usefixtures("without_package")
def test_a_report_of_no_service_says_what_to_install(kept):
    with pytest.raises(gg.GradgaugeError, match="pip install"):
        kept.to_markdown()
    with pytest.raises(gg.GradgaugeError, match="pip install"):
        kept.diff(kept)


def test_a_table_has_the_columns_of_the_columnar_layout(kept):
    pandas = pytest.importorskip("pandas")
    table = kept.to_dataframe()
    told = columns(kept.model_dump(mode="json")["layers"])["columns"]
    assert set(table.columns) == set(told)
    assert len(table) == len(kept.layers)
    for name in ("id", "op", "depth", "sampled.log10_grad_act.q50", "analytic.log10_grad_act"):
        assert list(table[name]) == told[name], name
    assert list(table.columns[:2]) == ["depth", "finding_ids"]
    assert pandas.api.types.is_float_dtype(table["sampled.log10_grad_act.q50"])


def test_a_table_keeps_its_columns_where_nothing_was_sampled():
    pytest.importorskip("pandas")
    told = reports.report()
    whole = reported(told).to_dataframe()
    for layer in told["layers"]:
        layer["sampled"] |= {"log10_grad_act": None, "log10_grad_param_ci": None}
    bare = reported(told).to_dataframe()
    assert list(bare.columns) == list(whole.columns)
    assert bare["sampled.log10_grad_act.q50"].isna().all()
    assert not whole["sampled.log10_grad_act.q50"].isna().any()


def test_the_picture_shows_the_reports_numbers(kept):
    figure = pytest.importorskip("matplotlib.figure")
    axes = kept.plot(figure.Figure().subplots())
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert lines["sampled median"] == [e.sampled.log10_grad_act.q50 for e in kept.layers]
    assert lines["analytic"] == [e.analytic.log10_grad_act for e in kept.layers]
    low, high = axes.get_ylim()
    assert high - low >= 4
    assert kept.model.name in axes.get_title()


def test_a_gap_in_the_numbers_is_a_gap_in_the_picture():
    figure = pytest.importorskip("matplotlib.figure")
    told = reports.report()
    told["model"]["name"] = "$\\frac$ no formula"
    told["layers"][2]["analytic"]["log10_grad_act"] = None
    told["layers"][3]["sampled"]["log10_grad_act"] = None
    canvas = figure.Figure()
    axes = reported(told).plot(canvas.subplots())
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert lines["analytic"][2] != lines["analytic"][2]
    assert lines["sampled median"][3] != lines["sampled median"][3]
    canvas.canvas.draw()


def test_a_picture_without_axes_makes_its_own(kept):
    plt = pytest.importorskip("matplotlib.pyplot")
    axes = kept.plot()
    assert axes.figure.number in plt.get_fignums()
    plt.close(axes.figure)


@pytest.mark.parametrize(("call", "library"), [("to_dataframe", "pandas"), ("plot", "matplotlib")])
def test_a_library_that_is_missing_is_named(kept, monkeypatch, call, library):
    monkeypatch.setitem(__import__("sys").modules, library, None)
    monkeypatch.setitem(__import__("sys").modules, f"{library}.pyplot", None)
    with pytest.raises(ImportError, match=rf"{call} needs {library}: pip install"):
        getattr(kept, call)()


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))

    def handle_data(self, data):
        self.words.append(data)


def test_a_notebook_shows_verdict_and_findings(kept):
    shown = Tags(kept._repr_html_())
    assert any(kept.model.name in word and "FAIL" in word for word in shown.words)
    for finding in kept.findings:
        assert finding.rule_id in shown.words
    assert shown.tags.count(("tr", [])) == 1 + len(kept.findings)


def test_a_hostile_name_is_no_markup_in_a_notebook():
    told = reports.report()
    told["model"]["name"] = told["summary"]["headline"] = reports.HOSTILE
    told["findings"][0]["title"] = told["layers"][0]["name"] = reports.HOSTILE
    told["gate"]["reason"] = reports.HOSTILE
    shown = Tags(reported(told)._repr_html_())
    assert {tag for tag, _ in shown.tags} <= {"div", "strong", "p", "table", "tr", "th", "td"}
    assert all(not attrs for _, attrs in shown.tags)


def test_a_diff_tells_what_the_later_report_has_new(kept):
    told = reports.report()
    told["findings"][0]["fingerprint"] = "f" * 16
    told["layers"][0]["sampled"]["log10_grad_act"]["q50"] += 0.5
    later = reported(told)
    changed = kept.diff(later)
    assert [each.fingerprint for each in changed.new] == ["f" * 16]
    assert [each.fingerprint for each in changed.fixed] == [kept.findings[0].fingerprint]
    assert changed.layers[0].log10_grad_act == pytest.approx(0.5)
    assert (changed.base, changed.head, changed.verdict) == (kept.id, later.id, "fail")


def test_what_was_there_before_passes_where_only_new_counts(kept):
    same = kept.diff(kept, only_new=True)
    assert (same.new, same.fixed, same.gate.passed) == ([], [], True)
    assert len(same.existing) == len(kept.findings)
    assert not kept.diff(kept).gate.passed


@pytest.mark.usefixtures("without_package")
def test_without_the_package_a_service_compares_its_analyses(kept):
    with fake_service.running() as service, Client(service.url) as client:
        answer = kept_answer(kept)
        service.script("POST /v1/comparisons", Answer(body=answer))
        made = [client.analyses.create(architecture={"a": n}).wait().report() for n in (1, 2)]
        changed = made[0].diff(made[1], only_new=True)
        asked = json.loads(service.seen[-1].body)
    assert asked == {"base": "ana_1", "head": "ana_2", "policy": None, "only_new": True}
    assert changed.model_dump(mode="json") == answer


def kept_answer(report):
    nothing = {"new": [], "existing": [], "fixed": [], "layers": []}
    gate = report.gate.model_dump(mode="json")
    ids = {"base": "ana_1", "head": "ana_2", "only_base": [], "only_head": []}
    return nothing | ids | {"gate": gate, "verdict": "fail"}
