import csv
import io
import json
import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from msgspec import structs

from keyturn.errors import KeyturnError
from keyturn.scanner.model import Context, Finding, Notice, Owner, Place, Problem, Report
from keyturn.scanner.reporting import FORMATS, render
from keyturn.scanner.reporting.options import REVEALING, Options
from tests.scanner.scanning import NETRC, SHOP, SITE, finding, shop_key

HOSTILE = Place(
    "src/a,b:c%\n::error::x\x1b[31m.py", 3, 1, 5, members=("in\r.zip", "<m>&.py"), commit="c0ffee" * 6 + "c0ff"
)
OWNER = Owner(key="key_1", keyspace="orders", owner="team", state="active", next_command="keyturn keys revoke key_1")


def report(*findings: Finding, **given: Any) -> Report:
    return Report(findings=list(findings), documents=2, bytes=100, seconds=0.5, **given)


def full() -> Report:
    allowed = finding(SITE, verdict="allow", contexts=frozenset({Context.CLIENT_BUNDLE}))
    return report(
        finding(),
        finding(verdict="warn", place=HOSTILE, owner=OWNER, certainty="own"),
        finding(NETRC, secret="x", masked=""),
        ignored=[allowed, finding(verdict="comment"), finding(verdict="baseline")],
        notices=[Notice(Problem.UNREADABLE, "x,y", "permission denied"), Notice(Problem.BOUND, "", "too big")],
        stale=["cd" * 20],
    )


@pytest.mark.parametrize("form", FORMATS)
def test_no_form_holds_a_secret_unless_asked(form: str) -> None:
    assert shop_key() not in render(full(), form, Options())
    assert (shop_key() in render(full(), form, Options(reveal=True))) is (form in REVEALING)


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_can_be_made_of_nothing(form: str) -> None:
    assert isinstance(render(Report(), form, Options()), str)


@pytest.mark.parametrize("form", FORMATS)
def test_no_form_lets_a_file_name_send_control_characters(form: str) -> None:
    text = render(full(), form, Options())
    assert "\x1b" not in text
    assert not re.search(r"(?<!\n)\r(?!\n)", text)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("command", ["##vso[task.setvariable variable=PATH]/x", "##[add-mask]a", "##teamcity[a]"])
def test_no_form_makes_a_build_machine_obey_a_name_or_a_line(form: str, command: str) -> None:
    """Such a machine reads what a job prints: a scanned file could set variables of the steps that follow."""
    hostile = finding(path=command, line_text=f"key {command}")
    text = render(report(hostile, notices=[Notice(Problem.CORRUPT, command, command)]), form, Options())
    assert command not in text
    if form == "json":
        assert json.loads(text)["findings"][0]["line"] == f"key {command}"


@pytest.mark.parametrize("form", ["text", "junit", "csv"])
def test_no_line_begins_as_a_command_of_github(form: str) -> None:
    hostile = finding(path="::stop-commands::x", line_text="::add-mask::e")
    text = render(report(hostile), form, Options())
    assert "stop-commands" in text
    assert not re.search(r"(?m)^\s*::", text)


def test_json_is_of_a_documented_schema() -> None:
    document = json.loads(render(full(), "json", Options()))
    assert document["version"] == 1
    assert document["summary"]["blocked"] == 2
    assert (document["summary"]["errors"], document["summary"]["ignored"]) == (1, 3)
    assert set(document) == {"version", "tool", "summary", "findings", "ignored", "notices", "stale", "judged_by"}
    assert document["findings"][1]["place"]["path"] == HOSTILE.path
    assert document["findings"][1]["owner"]["key"] == "key_1"
    assert document["findings"][0]["next"] == "revoke it: https://shop.example.com/keys"
    guide = __import__("pathlib").Path(__file__).parents[3] / "docs/guides/scan.md"
    described = guide.read_text()
    for name in (*document, *document["findings"][0], *document["findings"][0]["place"], *document["summary"]):
        assert f"`{name}`" in described, name


def test_sarif_has_what_the_standard_requires() -> None:
    document = json.loads(render(full(), "sarif", Options()))
    (run,) = document["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert document["version"] == "2.1.0"
    assert run["tool"]["driver"]["name"] == "Keyturn"
    assert len({rule["id"] for rule in rules}) == len(rules)
    assert [rule["helpUri"] for rule in rules if rule["id"] == SHOP.id] == [SHOP.revoke]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in {"error", "warning", "note"}
        assert result["message"]["text"]
        assert result["partialFingerprints"] == {"keyturnFingerprint/v1": "ab" * 20}
        (location,) = result["locations"]
        region = location["physicalLocation"]["region"]
        assert 1 <= region["startLine"] <= region["endLine"]
        assert re.fullmatch(r"[\w./%,~-]+", location["physicalLocation"]["artifactLocation"]["uri"])
    assert [len(result.get("suppressions", [])) for result in run["results"]] == [0, 0, 0, 1, 1, 1]
    assert run["results"][4]["suppressions"] == [{"kind": "inSource"}]
    assert run["invocations"][0]["executionSuccessful"] is False
    assert [one["level"] for one in run["invocations"][0]["toolExecutionNotifications"]] == ["error", "note"]


def test_junit_is_xml_with_a_failure_for_what_blocks() -> None:
    text = render(full(), "junit", Options())
    tree = ET.fromstring(text)  # noqa: S314 -- our own
    suite = tree[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "2", "1")
    assert [len(case.findall("failure")) for case in suite] == [1, 0, 1, 0]
    assert len(suite.findall("testcase/error")) == 1


def test_junit_of_nothing_is_one_test_that_passed() -> None:
    tree = ET.fromstring(render(report(), "junit", Options()))  # noqa: S314 -- our own
    assert (tree[0].get("tests"), tree[0].get("failures"), len(tree[0])) == ("1", "0", 1)


@pytest.mark.parametrize("path", ["=cmd|x", "+1", "-1", "@SUM(A1)", " =1", " -1"])
def test_no_cell_is_taken_for_a_formula(path: str) -> None:
    """A file can be named so that a spreadsheet would run it."""
    heading, row = csv.reader(io.StringIO(render(report(finding(path=path)), "csv", Options())))
    cell = dict(zip(heading, row, strict=True))["path"]
    assert cell.startswith("'")


def test_csv_has_a_row_for_each_finding() -> None:
    rows = list(csv.DictReader(io.StringIO(render(full(), "csv", Options()))))
    assert [row["verdict"] for row in rows] == ["block", "warn", "block"]
    assert rows[1]["owner"] == "key_1 in orders of team, active"


def test_annotations_cannot_be_broken_out_of() -> None:
    """What a file is called must not become a command of its own."""
    lines = render(full(), "github", Options()).splitlines()
    assert len(lines) == 5
    assert [line.split(" ", 1)[0] for line in lines] == ["::error", "::warning", "::error", "::error", "::notice"]
    assert lines[0].startswith("::error file=src/app.py,line=3,endLine=3,title=leaked key%3A shop-key::Shop key in")
    assert "file=src/a%2Cb%3Ac%25" in lines[1]
    assert lines[1].count("::") == 2


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_names_the_commit_of_what_stands_in_its_message(form: str) -> None:
    """Its place has no file: without the commit nobody could look there."""
    said = Place("commit message", 8, 1, 8, commit="c0ffee" * 6 + "c0ff")
    assert "c0ffeec0ffee" in render(report(finding(place=said)), form, Options())


def test_text_says_where_what_whose_and_what_to_do_next() -> None:
    text = render(full(), "text", Options())
    assert "src/app.py:3: BLOCK shop-key" in text
    assert "shop_…(29 characters)" in text
    assert "key_1 in orders of team, active" in text
    assert "keyturn keys revoke key_1" in text
    assert "error: x,y: unreadable: permission denied" in text
    assert "note: (source): bound: too big" in text
    assert "cd" * 20 in text
    assert "2 to be acted on, 1 to look at; 3 judged before or allowed; 1 errors" in text


def test_text_says_how_to_accept_what_is_no_secret() -> None:
    """Whoever is stopped by a hook has to find the way on; a push to a server is not to be told of one that is not."""
    told = "keyturn:allow FINGERPRINT"
    assert told in render(full(), "text", Options(acceptance=True))
    assert told not in render(full(), "text", Options())
    assert told not in render(report(), "text", Options(acceptance=True))


def test_strict_makes_a_bound_an_error_in_every_form() -> None:
    assert "error: (source): bound: too big" in render(full(), "text", Options(strict=True))
    assert json.loads(render(full(), "json", Options(strict=True)))["summary"]["errors"] == 2


def test_a_line_of_a_finding_is_what_was_masked() -> None:
    one = structs.replace(finding(), line_text="masked line")
    assert "masked line" in render(report(one), "text", Options())


def test_there_is_no_form_of_another_name() -> None:
    with pytest.raises((KeyturnError, ModuleNotFoundError)):
        render(report(), "xml", Options())
