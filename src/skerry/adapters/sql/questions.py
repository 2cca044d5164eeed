"""Questions, answers and what was told unasked, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from skerry.adapters.sql import rows
from skerry.adapters.sql.audit_log import add_audit
from skerry.adapters.sql.database import Database
from skerry.adapters.sql.schema_questions import answers, crashes, questions
from skerry.ports.hub_store import Audit
from skerry.ports.question_store import AnswerRecord, QuestionRecord, QuestionStore, StoredCrash

AT_ONCE = 1000
_put_crash = sqlite.insert(crashes).on_conflict_do_nothing()
_heads = [column for column in answers.c if column.name != "content"]


class SqlQuestions(QuestionStore):
    """The part of the hub's store that is about questions."""

    _database: Database

    def add_question(self, record: QuestionRecord, audit: Audit) -> None:
        def write(connection: sa.Connection) -> None:
            rows.add(connection, questions, record)
            add_audit(connection, audit)

        self._database.write(write)

    def question(self, name: str) -> QuestionRecord | None:
        query = sa.select(questions).where(questions.c.id == name)
        return self._database.read(lambda connection: rows.load_one(connection, query, QuestionRecord))

    def questions(self, since: datetime) -> Sequence[QuestionRecord]:
        recent = sa.or_(questions.c.expires_at > since, questions.c.asked_at > since)
        query = (
            sa.select(questions).where(recent).order_by(questions.c.asked_at, questions.c.id).limit(AT_ONCE)
        )
        return self._database.read(lambda connection: rows.load_all(connection, query, QuestionRecord))

    def end_question(self, name: str, audit: Audit) -> None:
        def write(connection: sa.Connection) -> None:
            connection.execute(sa.update(questions).where(questions.c.id == name).values(ended=True))
            add_audit(connection, audit)

        self._database.write(write)

    def put_answer(self, record: AnswerRecord, *, most_bytes: int) -> bool:
        return self._database.write(lambda connection: _put_answer(connection, record, most_bytes))

    def answers(self, question: str, *, after: int, limit: int) -> Sequence[AnswerRecord]:
        query = (
            sa.select(answers)
            .where(answers.c.question == question, answers.c.id > after)
            .order_by(answers.c.id)
            .limit(limit)
        )
        return self._database.read(lambda connection: rows.load_all(connection, query, AnswerRecord))

    def answer_heads(self, question: str) -> Sequence[AnswerRecord]:
        query = sa.select(*_heads).where(answers.c.question == question).order_by(answers.c.id)
        return self._database.read(lambda connection: rows.load_all(connection, query, AnswerRecord))

    def put_crash(self, record: StoredCrash, *, keep: int) -> None:
        def write(connection: sa.Connection) -> None:
            connection.execute(_put_crash, msgspec.structs.asdict(record))
            own = crashes.c.host == record.host
            kept = sa.select(crashes.c.id).where(own).order_by(crashes.c.at.desc()).limit(keep)
            connection.execute(sa.delete(crashes).where(own, crashes.c.id.not_in(kept)))

        self._database.write(write)

    def crashes(self, since: datetime, *, application: str = "", limit: int = 1000) -> Sequence[StoredCrash]:
        query = sa.select(crashes).where(crashes.c.at >= since)
        if application:
            query = query.where(crashes.c.application == application)
        query = query.order_by(crashes.c.at.desc(), crashes.c.host, crashes.c.id).limit(limit)
        return self._database.read(lambda connection: rows.load_all(connection, query, StoredCrash))

    def trim_questions(self, before: datetime, crashes_before: datetime) -> None:
        def write(connection: sa.Connection) -> None:
            connection.execute(sa.delete(questions).where(questions.c.expires_at < before))
            known = sa.select(questions.c.id)
            connection.execute(sa.delete(answers).where(answers.c.question.not_in(known)))
            connection.execute(sa.delete(crashes).where(crashes.c.at < crashes_before))

        self._database.write(write)


def _put_answer(connection: sa.Connection, record: AnswerRecord, most_bytes: int) -> bool:
    own = sa.and_(answers.c.question == record.question, answers.c.host == record.host)
    size = sa.func.length(answers.c.content)
    there = connection.execute(
        sa.select(answers.c.run, answers.c.number, answers.c.last, size).where(own)
    ).all()
    used = sum(row[3] for row in there)
    if any(run == record.run and number == record.number for run, number, _, _ in there):
        return False
    if any(run != record.run for run, _, _, _ in there):
        if any(last for _, _, last, _ in there):
            return False
        # The host began again, and works the whole answer out anew.
        connection.execute(sa.delete(answers).where(own))
        used = 0
    if used + len(record.content) > most_bytes:
        record = msgspec.structs.replace(record, content=b"", more=True)
    row = msgspec.structs.asdict(record)
    del row["id"]
    connection.execute(sa.insert(answers), row)
    return True
