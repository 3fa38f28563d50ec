"""What a comparison calls new, existing and fixed."""

import pytest

from gradgauge.schema.report import Report, fingerprint
from gradgauge.verdict.compare import compare
from tests import reports


def report(*fingerprints, layers=None, **changes):
    found = [reports.finding(id=f"F{i}", fingerprint=each) for i, each in enumerate(fingerprints)]
    told = reports.report(depth=2, findings=found, **changes)
    return Report.model_validate(told | ({"layers": layers} if layers else {}))


def prints(findings):
    return [finding.fingerprint for finding in findings]


def test_findings_are_new_existing_or_fixed_by_their_fingerprint():
    told = compare(report("a", "b"), report("b", "c"))
    assert (prints(told.new), prints(told.existing), prints(told.fixed)) == (["c"], ["b"], ["a"])
    assert [f.status for f in (*told.new, *told.existing, *told.fixed)] == [
        "new",
        "existing",
        "fixed",
    ]


def test_a_report_has_nothing_new_against_itself():
    same = report("a", "b", "b")
    told = compare(same, same)
    assert (told.new, told.fixed) == ([], [])
    assert {delta.log10_grad_param for delta in told.layers} == {0.0}


@pytest.mark.parametrize(("before", "after", "new", "fixed"), [(1, 3, 2, 0), (3, 1, 0, 2)])
def test_findings_that_share_a_fingerprint_are_counted(before, after, new, fixed):
    told = compare(report(*["a"] * before), report(*["a"] * after))
    assert (len(told.new), len(told.existing), len(told.fixed)) == (new, 1, fixed)


def test_what_base_calls_fixed_is_new_where_it_comes_back():
    old = Report.model_validate(
        reports.report(depth=2, findings=[reports.finding(fingerprint="a", status="fixed")])
    )
    assert prints(compare(old, report("a")).new) == ["a"]
    assert compare(old, report()).fixed == []


def test_a_suppressed_finding_stays_suppressed():
    head = Report.model_validate(
        reports.report(depth=2, findings=[reports.finding(fingerprint="a", status="suppressed")])
    )
    assert [f.status for f in compare(report("a"), head).existing] == ["suppressed"]


def test_layers_are_matched_by_name_and_their_gradients_by_decades():
    base = report(layers=[reports.layer(1, name="x"), reports.layer(2, name="gone")])
    head = report(layers=[reports.layer(5, name="x"), reports.layer(2, name="came")])
    told = compare(base, head)
    assert [(d.name, d.base_id, d.head_id) for d in told.layers] == [("x", "L0001", "L0005")]
    # tests.reports draws 0.3 decades a layer: four layers on, 1.2 decades up
    assert told.layers[0].log10_grad_param == pytest.approx(1.2)
    assert (told.only_base, told.only_head) == (["gone"], ["came"])


def test_an_unmeasured_layer_has_no_move_and_a_name_held_twice_is_not_matched():
    bare = reports.layer(1, name="x", sampled=reports.unmeasured())
    base = report(layers=[bare, reports.layer(2, name="y"), reports.layer(3, name="y")])
    head = report(layers=[reports.layer(1, name="x"), reports.layer(2, name="y")])
    told = compare(base, head)
    assert [(d.name, d.log10_grad_act) for d in told.layers] == [("x", None)]
    assert (told.only_base, told.only_head) == (["y", "y"], ["y"])


def test_a_fingerprint_holds_rule_category_and_scope():
    one = fingerprint("GF101", "vanishing", "/fc.1")
    assert one == fingerprint("GF101", "vanishing", "/fc.1")
    assert (
        len(
            {
                one,
                fingerprint("GF102", "vanishing", "/fc.1"),
                fingerprint("GF101", "vanishing", "/fc.2"),
            }
        )
        == 3
    )
