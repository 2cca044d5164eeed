"""The part of the client that is about logs."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from skerry.client.answers import decode_answer
from skerry.client.connection import Connection
from skerry.spec.api_logs import CrashView, LogsAnswer, LogsRequest, QuestionView


class LogsClient:
    """Asks hosts for their logs by way of the hub."""

    _connection: Connection

    def ask_logs(self, asked: LogsRequest) -> QuestionView:
        """Ask hosts for lines of their logs."""
        _, body = self._connection.request("POST", "/api/v1/logs", content=msgspec.json.encode(asked))
        return decode_answer(body, QuestionView)

    def logs(self, question: str, *, after: int = 0, wait_s: float = 0.0) -> LogsAnswer:
        """Return what was answered after a cursor, waiting up to `wait_s` for something."""
        params = {"after": str(after), "wait_s": str(wait_s)}
        _, body = self._connection.request("GET", _path(question), params=params)
        return decode_answer(body, LogsAnswer)

    def questions(self) -> list[QuestionView]:
        """Return the questions about logs whose answers can still be read."""
        _, body = self._connection.request("GET", "/api/v1/logs")
        return decode_answer(body, list[QuestionView])

    def end_logs(self, question: str) -> None:
        """Let no host answer a question any more."""
        self._connection.request("DELETE", _path(question))

    def crashes(self, application: str, *, since_s: float, selector: str) -> list[CrashView]:
        """Return what hosts told unasked, the newest first."""
        params = {"application": application, "since_s": str(since_s), "selector": selector}
        _, body = self._connection.request("GET", "/api/v1/crashes", params=params)
        return decode_answer(body, list[CrashView])


def _path(question: str) -> str:
    return f"/api/v1/logs/{quote(question, safe='')}"
