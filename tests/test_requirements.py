"""The rule that decides between skipping and failing, and its summary."""

from __future__ import annotations

import pytest

from tests import requirements


def test_missing_and_promised_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGKEEP_REQUIRE", "pg14, root")
    with pytest.raises(pytest.fail.Exception, match="PGKEEP_REQUIRE promises it"):
        requirements.need("root", "the tests run under uid 1000")


def test_missing_and_not_promised_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGKEEP_REQUIRE", "pg14")
    with pytest.raises(pytest.skip.Exception, match="needs root"):
        requirements.need("root", "the tests run under uid 1000")


def test_a_misspelt_promise_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGKEEP_REQUIRE", "pg14,pg99")
    with pytest.raises(requirements.UnknownRequirementError, match="pg99"):
        requirements.required()


def test_a_test_cannot_need_what_nobody_can_promise() -> None:
    with pytest.raises(requirements.UnknownRequirementError, match="moonlight"):
        requirements.need("moonlight", "it is day")


def test_summary_counts_equal_reasons() -> None:
    reason = "needs pg16 (PostgreSQL 16's programs): pip could not fetch it"
    assert requirements.summary([reason, reason, "because"]) == [
        "other: 1 test: because",
        "pg16: 2 tests: pip could not fetch it",
    ]
