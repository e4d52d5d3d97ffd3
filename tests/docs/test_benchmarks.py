"""The records of the benchmarks, and the page that is made of them."""

import json

import pytest

from benchmarks import _comparison, _record, _table

FACTS = {"date": "2026-01-02", "cpu": "a"}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(_record, "RESULTS", tmp_path)
    return tmp_path


def test_the_page_is_what_the_stored_records_make():
    assert _table.PAGE.read_text() == _table.page(), "run `make bench-page`"


def test_every_plot_of_the_page_is_there():
    assert all((_table.PLOTS / name).exists() for name in _table.FIGURES)


def test_every_benchmark_has_a_section():
    scripts = {path.stem for path in _table.HERE.glob("[a-z]*.py")}
    stored = {path.stem for path in _record.RESULTS.glob("*.json")}
    assert stored <= scripts == set(_table.SECTIONS) == set(_table.TITLES)


@pytest.mark.parametrize("path", sorted(_record.RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_stored_records_are_whole(path):
    found = json.loads(path.read_text())
    fields = {"case", "method", "package", "metric", "value", "unit", "note", "run"}
    assert found["records"]
    assert {frozenset(record) for record in found["records"]} == {frozenset(fields)}
    assert {record["run"] for record in found["records"]} == set(found["runs"])
    assert all("date" in facts and ("cpu" in facts or "note" in facts) for facts in found["runs"].values())
    assert all(record["note"] for record in found["records"] if record["value"] is None)
    names = [(record["case"], record["method"], record["metric"]) for record in found["records"]]
    assert len(names) == len(set(names))


def test_what_is_measured_again_replaces_itself_alone(results):
    _record.keep("x", _record.measured("one", "ours", "p 1", {"time [s]": 2.0, "ESS": 5}), FACTS)
    _record.keep("x", _record.measured("one", "theirs", "q 1", {"time [s]": 4.0}), FACTS)
    _record.keep("x", _record.measured("two", "ours", "p 1", {"time [s]": 3.0}), FACTS)
    _record.keep("x", _record.measured("one", "ours", "p 2", {"time [s]": 1.0}), FACTS | {"date": "2026-01-03"})
    found = _record.load("x")
    values = {(r["case"], r["metric"], r["unit"], r["package"]): r["value"] for r in found["records"]}
    theirs, other, ours = ("one", "time", "s", "q 1"), ("two", "time", "s", "p 1"), ("one", "time", "s", "p 2")
    assert values == {theirs: 4.0, other: 3.0, ours: 1.0}
    dates = [found["runs"][r["run"]]["date"] for r in found["records"]]
    assert dates == ["2026-01-02", "2026-01-02", "2026-01-03"]
    assert [path.name for path in results.iterdir()] == ["x.json"]


def test_a_run_that_nothing_refers_to_goes(results):
    for date in ("2026-01-02", "2026-01-03"):
        _record.keep("x", _record.measured("one", "ours", "p 1", {"ESS": 5}), FACTS | {"date": date})
    assert [facts["date"] for facts in _record.load("x")["runs"].values()] == ["2026-01-03"]


def test_a_value_that_is_no_number_is_refused(results):
    with pytest.raises(ValueError, match=r"case, method: ESS is nan"):
        _record.measured("case", "method", "p", {"ESS": float("nan")})
    with pytest.raises(ValueError, match=r"note: case, method: ESS is None"):
        _record.measured("case", "method", "p", {"ESS": None})


@pytest.mark.parametrize(
    ("ours", "theirs", "more", "text"),
    [
        (30.0, 10.0, True, "3 times ahead of B"),
        (10.0, 30.0, True, "**behind** B, 3 times"),
        (10.0, 30.0, False, "3 times ahead of B"),
        (10.0, 10.2, True, "level with B"),
        (None, 10.0, True, "not measured"),
        (10.0, None, True, "not measured"),
    ],
)
def test_verdicts(ours, theirs, more, text):
    worse = None if theirs is None else theirs * (0.5 if more else 2)
    row = _comparison.Row("what", "asked", {"ours": ours}, {"A": worse, "B": theirs}, more, "")
    assert _comparison.verdict(row) == text
