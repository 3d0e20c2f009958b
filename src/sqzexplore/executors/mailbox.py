"""Where the tasks of a Ray cluster write to their sweep.

Letters are packed by those who write them, so that the process that holds them, beside the sweep,
needs neither torch nor anything else of a task.
"""

from __future__ import annotations

import asyncio


class Mailbox:
    """An actor: tasks leave letters and questions, the sweep takes them and answers."""

    def __init__(self) -> None:
        self._letters: list[tuple[int, bytes]] = []
        self._questions: dict[int, asyncio.Future[bool]] = {}
        self._asked = 0

    async def post(self, letter: bytes) -> None:
        """Leave a letter."""
        self._letters.append((0, letter))

    async def ask(self, letter: bytes) -> bool:
        """Leave a question, and wait for its answer."""
        self._asked += 1
        answer = self._questions[self._asked] = asyncio.get_running_loop().create_future()
        self._letters.append((self._asked, letter))
        return await answer

    async def answer(self, number: int, stop: bool) -> None:
        """Answer a question by its number."""
        question = self._questions.pop(number)
        if not question.done():
            question.set_result(stop)

    async def take(self) -> list[tuple[int, bytes]]:
        """The letters since the last time, each with the number of its question, or 0."""
        letters, self._letters = self._letters, []
        return letters
