"""What Vertex's error answers mean."""

import pytest

from app.contract import errors
from app.providers.failures import CallFailed, ErrorAnswer, translated
from app.providers.transport import Answer, Broken, NotSent, TooLate, TransportError
from app.providers.vertex.failures import FAILURES, said
from tests.support.vertex_provider import IMAGEN, Json


def failed_by(exc: Exception) -> CallFailed:
    with pytest.raises(CallFailed) as raised, translated(FAILURES, IMAGEN, said):
        raise exc
    return raised.value


def refused(answer: Answer) -> CallFailed:
    return failed_by(ErrorAnswer(answer))


RPC = "type.googleapis.com/google.rpc"


def failure(
    status: int,
    name: str,
    *details: object,
    message: object = "secret",
    headers: dict[str, str] | None = None,
) -> CallFailed:
    error = {"code": status, "status": name, "message": message, "details": list(details)}
    return refused(Answer(status, headers or {}, {"error": error}))


STATUSES = [
    (400, "INVALID_ARGUMENT", errors.InvalidRequest, "refused"),
    (400, "FAILED_PRECONDITION", errors.InvalidRequest, "refused"),
    (400, "OUT_OF_RANGE", errors.InvalidRequest, "refused"),
    (401, "UNAUTHENTICATED", errors.UpstreamFailed, "refused"),
    (403, "PERMISSION_DENIED", errors.UpstreamFailed, "refused"),
    (404, "NOT_FOUND", errors.ModelGone, "refused"),
    (408, "DEADLINE_EXCEEDED", errors.UpstreamTimeout, "unknown"),
    (409, "ABORTED", errors.UpstreamFailed, "unknown"),
    (409, "ALREADY_EXISTS", errors.UpstreamFailed, "unknown"),
    (413, "INVALID_ARGUMENT", errors.UpstreamFailed, "unknown"),
    (429, "RESOURCE_EXHAUSTED", errors.RateLimited, "no"),
    (499, "CANCELLED", errors.UpstreamFailed, "unknown"),
    (500, "INTERNAL", errors.UpstreamFailed, "unknown"),
    (500, "UNKNOWN", errors.UpstreamFailed, "unknown"),
    (500, "DATA_LOSS", errors.UpstreamFailed, "unknown"),
    (501, "UNIMPLEMENTED", errors.UpstreamFailed, "unknown"),
    (502, "UNAVAILABLE", errors.UpstreamFailed, "unknown"),
    (503, "UNAVAILABLE", errors.UpstreamUnavailable, "no"),
    (504, "DEADLINE_EXCEEDED", errors.UpstreamTimeout, "unknown"),
    (503, "SOMETHING_NEW_2", errors.UpstreamUnavailable, "no"),
]


@pytest.mark.parametrize(("status", "name", "meaning", "served"), STATUSES)
def test_every_status_has_a_meaning(
    status: int, name: str, meaning: type[errors.GatewayError], served: str
) -> None:
    failed = failure(status, name)
    assert (type(failed.error), failed.served, failed.error.vendor_code) == (meaning, served, name)
    assert "secret" not in f"{failed} {failed.error.message}"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="no JSON"),
        pytest.param({}, id="nothing"),
        pytest.param([], id="empty list"),
        pytest.param([{"error": {}}], id="empty error"),
        pytest.param({"error": None}, id="null"),
        pytest.param({"error": "UNAVAILABLE"}, id="text"),
        pytest.param({"code": 503, "status": "UNAVAILABLE"}, id="no error"),
        pytest.param({"error": {"code": 503}}, id="no status"),
        pytest.param({"error": {"code": "503", "status": "UNAVAILABLE"}}, id="code as text"),
        pytest.param({"error": {"code": 14, "status": "UNAVAILABLE"}}, id="another code"),
        pytest.param({"error": {"code": 503, "status": "secret words"}}, id="status is no name"),
        pytest.param({"error": {"code": 503, "status": ["UNAVAILABLE"]}}, id="status is a list"),
        pytest.param([{"error": {"code": 503, "status": "UNAVAILABLE"}}] * 2, id="two errors"),
    ],
)
@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (503, errors.UpstreamFailed),
        (429, errors.UpstreamFailed),
        (404, errors.UpstreamFailed),
        (302, errors.UpstreamFailed),
        (504, errors.UpstreamTimeout),
        (408, errors.UpstreamTimeout),
    ],
)
def test_error_in_another_format_is_not_believed(
    status: int, meaning: type[errors.GatewayError], value: object
) -> None:
    if status != 503 and value is not None:
        value = {"message": "secret"}
    failed = refused(Answer(status, {"retry-after": "1"}, value))
    assert (type(failed.error), failed.served) == (meaning, "unknown")
    assert failed.error.vendor_code == f"HTTP_{status}"


@pytest.mark.parametrize(
    ("exc", "meaning", "served"),
    [
        (NotSent("refused"), errors.UpstreamUnavailable, "no"),
        (TooLate("late"), errors.UpstreamTimeout, "unknown"),
        (Broken("cut"), errors.UpstreamFailed, "unknown"),
        (TransportError("of a kind to come"), errors.UpstreamFailed, "unknown"),
    ],
)
def test_calls_without_an_answer(
    exc: TransportError, meaning: type[errors.GatewayError], served: str
) -> None:
    failed = failed_by(exc)
    assert (type(failed.error), failed.served) == (meaning, served)
    assert failed.error.vendor_code == type(exc).__name__
    assert getattr(failed.error, "retry_after", None) == (10 if served == "no" else None)


def retry(delay: object) -> Json:
    return {"@type": f"{RPC}.RetryInfo", "retryDelay": delay}


@pytest.mark.parametrize(
    ("details", "header", "pause"),
    [
        pytest.param([retry("7s")], None, 7, id="detail"),
        pytest.param([retry("6.5s")], None, 6.5, id="fraction"),
        pytest.param([retry("0.000000001s")], "9", 0.000000001, id="detail before header"),
        pytest.param([], "8", 8, id="header"),
        pytest.param([{"@type": f"{RPC}.DebugInfo", "retryDelay": "7s"}], "8", 8, id="another detail"),
        pytest.param([retry({"seconds": 7})], None, None, id="not as REST spells it"),
        pytest.param([retry("-7s")], "-7", None, id="negative"),
        pytest.param([retry("7 s")], "soon", None, id="no number"),
        pytest.param([retry("9" * 400 + "s")], "9" * 400, None, id="for ever"),
        pytest.param([retry("\u0667s")], "\u0667", None, id="digits of another script"),
        pytest.param([], "Wed, 21 Oct 2026 07:28:00 GMT", None, id="date"),
        pytest.param(["7s", None, 7, [], {"@type": None}], None, None, id="odd details"),
    ],
)
@pytest.mark.parametrize(
    ("status", "name", "otherwise"), [(429, "RESOURCE_EXHAUSTED", 30), (503, "UNAVAILABLE", 10)]
)
def test_pause_that_is_asked_for_is_told(
    status: int, name: str, otherwise: int, details: list[object], header: str | None, pause: float | None
) -> None:
    failed = failure(status, name, *details, headers={"retry-after": header} if header else {})
    assert failed.pause == pause
    assert isinstance(failed.error, errors.RateLimited | errors.UpstreamUnavailable)
    expected = otherwise if pause is None else max(1, round(pause + 0.49))
    assert failed.error.retry_after == expected


@pytest.mark.parametrize(
    "details",
    [
        None,
        "x",
        5,
        {"a": 1},
        [["x"]],
        [{"@type": f"{RPC}.BadRequest", "fieldViolations": 5}],
        [{"@type": f"{RPC}.BadRequest", "fieldViolations": [None, {"field": 5}, {"field": ""}]}],
    ],
)
def test_odd_details_do_no_harm(details: object) -> None:
    error = {"code": 400, "status": "INVALID_ARGUMENT", "message": None, "details": details}
    failed = refused(Answer(400, {}, {"error": error}))
    assert failed.error.message == "imagen-4.0-generate-001 does not take this request"


def test_details_may_be_nested_deeply() -> None:
    deep: Json = {"code": "58061214"}
    for _ in range(50_000):
        deep = {"a": deep}
    failed = failure(400, "INVALID_ARGUMENT", deep)
    assert isinstance(failed.error, errors.SafetyBlocked)


@pytest.mark.parametrize(
    ("text", "blocked"),
    [
        ("Support codes: 58061214", True),
        ("first line\n58061214\nlast line", True),
        ("The image violates our usage guidelines", True),
        ("project 12345678 lacks a quota", False),
    ],
)
@pytest.mark.parametrize("place", ["message", "detail"])
def test_support_codes_are_found_wherever_they_stand(place: str, text: str, blocked: bool) -> None:
    detail = {"@type": f"{RPC}.DebugInfo", "detail": text}
    failed = (
        failure(400, "INVALID_ARGUMENT", message=text)
        if place == "message"
        else failure(400, "INVALID_ARGUMENT", detail)
    )
    assert isinstance(failed.error, errors.SafetyBlocked) is blocked
    assert failed.served == "refused"


def test_callers_object_that_is_missing_is_not_a_model_that_is_gone() -> None:
    failed = failure(404, "NOT_FOUND", message="Object gs://bucket/a.png does not exist")
    assert (failed.error.message, failed.served) == ("a gs:// picture could not be read", "refused")
