"""Joins what is asked at about the same time into one call."""

import asyncio
import concurrent.futures
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
  """Answers questions many at a time; for one event loop.

  The first question waits a little for others; while a call runs, those that
  come wait for the next, so that batches grow with the load.
  """

  def __init__(
    self,
    answer: Callable[[Sequence[T]], Sequence[R | Exception]],
    executor: concurrent.futures.Executor,
    *,
    delay_s: float,
    most: int = 256,
  ):
    """Makes an idle batcher.

    Args:
      answer: from questions to as many answers, or what kept each from having
        one; what it raises keeps all of them.
      executor: where it runs; one thread gives one call at a time.
      delay_s: how long the first question waits, in seconds, >= 0.
      most: questions in one call, >= 1.
    """
    self._answer = answer
    self._executor = executor
    self._delay_s = delay_s
    self._most = most
    self._waiting: list[tuple[T, asyncio.Future[R]]] = []
    self._worker: asyncio.Task[None] | None = None

  async def ask(self, question: T) -> R:
    """Returns the answer to one question, or raises what kept it.

    Args:
      question: what `answer` takes.
    """
    future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
    self._waiting.append((question, future))
    if self._worker is None:
      self._worker = asyncio.create_task(self._work())
    return await future

  async def _work(self) -> None:
    await asyncio.sleep(self._delay_s)
    while self._waiting:
      batch = self._waiting[: self._most]
      del self._waiting[: self._most]
      for (_, future), answer in zip(
        batch, await self._call([asked for asked, _ in batch]), strict=True
      ):
        # Whoever asked may have been cancelled.
        if future.done():
          continue
        if isinstance(answer, Exception):
          future.set_exception(answer)
        else:
          future.set_result(answer)
    self._worker = None

  async def _call(self, questions: Sequence[T]) -> Sequence[R | Exception]:
    loop = asyncio.get_running_loop()
    try:
      return await loop.run_in_executor(self._executor, self._answer, questions)
    except Exception as error:
      return [error] * len(questions)
