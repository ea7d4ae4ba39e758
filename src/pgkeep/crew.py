"""Crew: worker processes that keep state from task to task, hand results back, and never outlive their parent.

A `concurrent.futures` executor fans out independent work; a backup or a restore needs more: each worker owns something
for the whole job (a pack being filled, open files) and must be asked to finish it.  So:

1. A worker is built in its own process from a picklable recipe, then called once a task.
2. Tasks are handed out as workers become free, two at a time, so that none waits for the parent.  A worker takes its
   next task off the pipe while it still works, or hands back a result: a pipe holds some hundred kilobytes, and two
   that both wait until the other has read would wait for ever.
3. A Fault of a worker is raised in the parent; a worker that dies is `worker-died`.
4. Workers ignore Ctrl-C (the parent stops them) and end when the pipe to the parent closes, however it died.  One that
   is stopped unwinds first, so that it takes its unfinished files along; one that ends before `finish` takes back what
   it has made (`Abandoning`).

Processes are forked from a fork server, not from the parent, which may have threads and connections; the server imports
once what all workers need (docs/decisions/0003).
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeVar, runtime_checkable

from pgkeep.errors import Fault

T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
F_co = TypeVar("F_co", covariant=True)
T = TypeVar("T")
R = TypeVar("R")
F = TypeVar("F")

_AHEAD: Final = 2
_FINISH: Final = "finish"
_TASK: Final = "task"
_RESULT: Final = "result"
_FAULT: Final = "fault"


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block; processes that are started meanwhile never see one.

    A process that ignores it only once it runs would still die of one in its first milliseconds, with a traceback; so
    it inherits a mask.  The main thread's handler is held too, because another thread may take the signal.
    """
    resource_tracker.ensure_running()  # the first start would run it, and that lets interrupts through again
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    held: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()  # only that one may set handlers
    handler = signal.signal(signal.SIGINT, lambda number, _frame: held.append(number)) if is_main else None
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if held:
            signal.raise_signal(signal.SIGINT)


class Worker(Protocol[T_contra, R_co, F_co]):
    """What runs in a worker process."""

    def run(self, task: T_contra) -> R_co:
        """Do one task."""
        ...

    def finish(self) -> F_co:
        """End the worker's part of the job; no task follows."""
        ...


@runtime_checkable
class Abandoning(Protocol):
    """A worker that has something to take back when it ends before it was asked to finish."""

    def abandon(self) -> None:
        """Nobody will use what was made: a fault, a stop, or the end of the parent.  Raises nothing."""
        ...


def prepare(module: str) -> ForkServerContext:
    """Start the fork server and let it import the recipe's module; returns at once, and may be called early."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pgkeep.crewserver", module])
    with interrupts_held():
        forkserver.ensure_running()
    return context


class Crew(Generic[T, R, F]):
    """`size` processes, each running the worker that `recipe(*arguments)` builds."""

    def __init__(self, size: int, recipe: Callable[..., Worker[T, R, F]], *arguments: Any) -> None:
        context = prepare(recipe.__module__)
        self._processes: dict[Connection, ForkServerProcess] = {}
        self._waiting: dict[Connection, int] = {}
        self._asked = False
        for _ in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, recipe, arguments), daemon=True)
            with interrupts_held():
                process.start()
            theirs.close()
            self._processes[ours] = process
            self._waiting[ours] = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(self, tasks: Iterable[T], idle: Callable[[], None] = lambda: None, every: float = 1.0) -> Iterator[R]:
        """The results in the order in which they come; `idle` is called about `every` seconds while waiting."""
        source = iter(tasks)
        exhausted = False
        while True:
            while not exhausted and (free := self._free()) is not None:
                try:
                    task = next(source)
                except StopIteration:
                    exhausted = True
                    break
                self._send(free, (_TASK, task))
            if exhausted and not any(self._waiting.values()):
                return
            yield from self._collect(every)
            idle()

    def each(self, task: T) -> Iterator[R]:
        """The results of one task that every worker does, after all that it was given before."""
        for connection in self._processes:
            self._send(connection, (_TASK, task))
        while any(self._waiting.values()):
            yield from self._collect(None)

    def ask_to_finish(self) -> None:
        """Let every worker begin to finish; no task follows.  What they answer is had from `finish`."""
        self._asked = True
        for connection in self._processes:
            self._send(connection, (_FINISH, None))

    def finish(self) -> Iterator[F]:
        """Ask every worker to finish, if they have not been asked; what they answer, as it comes.

        A fault is raised when all others have answered: what they finished must be known even then.
        """
        if not self._asked:
            self.ask_to_finish()
        first: Fault | None = None
        while any(self._waiting.values()):
            try:
                yield from self._collect(None)
            except Fault as fault:
                first = first or fault
        if first is not None:
            raise first

    def stop(self) -> None:
        """End all workers at once; harmless after `finish`."""
        # The signal first: a worker that saw the closed pipe would already unwind when it came.
        for process in self._processes.values():
            process.terminate()
        for connection in self._processes:
            connection.close()
        for process in self._processes.values():
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
        self._processes.clear()
        self._waiting.clear()

    def _free(self) -> Connection | None:
        connection = min(self._waiting, key=self._waiting.__getitem__)
        return connection if self._waiting[connection] < _AHEAD else None

    def _send(self, connection: Connection, message: tuple[str, Any]) -> None:
        try:
            connection.send(message)
        except OSError:
            raise self._last_words(connection) or self._died(connection) from None
        self._waiting[connection] += 1

    def _collect(self, timeout: float | None) -> Iterator[Any]:
        busy = [connection for connection, count in self._waiting.items() if count]
        for ready in wait(busy, timeout):
            assert isinstance(ready, Connection)
            try:
                kind, value = ready.recv()
            except (EOFError, OSError):
                self._waiting[ready] = 0
                raise self._died(ready) from None
            self._waiting[ready] -= 1
            if kind == _FAULT:
                raise value
            yield value

    def _last_words(self, connection: Connection) -> Fault | None:
        """The fault that a worker reported before it went, if it did; results before it are of no use any more."""
        try:
            while True:
                kind, value = connection.recv()
                if kind == _FAULT:
                    assert isinstance(value, Fault)
                    return value
        except (EOFError, OSError):
            return None

    def _died(self, connection: Connection) -> Fault:
        process = self._processes[connection]
        process.join(5)
        if process.exitcode == -signal.SIGTERM:
            return Fault("interrupted", "a worker process was terminated", hint="run the command again")
        return Fault(
            "worker-died",
            f"a worker process ended unexpectedly (exit code {process.exitcode})",
            hint="look for an out-of-memory kill in the system's log, then run the command again",
        )


class _Stopped(BaseException):
    """SIGTERM, as an exception that nothing but `_serve` catches."""


def _unwind(_number: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the clean-up
    raise _Stopped


def _serve(connection: Connection, recipe: Callable[..., Worker[Any, Any, Any]], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    owning: list[Worker[Any, Any, Any]] = []
    stopped = False
    try:
        _work(connection, recipe, arguments, owning)
    except _Stopped:
        stopped = True
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # also for a worker that ends by itself
        for worker in owning:
            if isinstance(worker, Abandoning):
                worker.abandon()
    if stopped:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)


def _work(
    connection: Connection, recipe: Callable[..., Worker[Any, Any, Any]], arguments: tuple[Any, ...],
    owning: list[Worker[Any, Any, Any]],
) -> None:  # fmt: skip
    """Serve until the parent closes the pipe; `owning` holds the worker while nobody else answers for what it made."""
    try:
        worker = recipe(*arguments)
        owning.append(worker)
        signal.signal(signal.SIGTERM, _unwind)
        orders = _orders(connection)
        while True:
            order, task = _next(orders)
            result = worker.run(task) if order == _TASK else worker.finish()
            if order == _FINISH:
                owning.clear()
            connection.send((_RESULT, result))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Fault as fault:
        _report(connection, fault)
    except Exception as error:
        _report(connection, Fault("worker-died", f"a worker failed: {error!r}", trace=traceback.format_exc()))


def _orders(connection: Connection) -> SimpleQueue[tuple[str, Any] | Exception]:
    """What comes through the pipe, read by a thread of its own; last the reason why nothing comes any more."""
    orders: SimpleQueue[tuple[str, Any] | Exception] = SimpleQueue()

    def read() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})  # they are for the main thread
        try:
            while True:
                orders.put(connection.recv())
        except Exception as error:
            orders.put(error)

    threading.Thread(target=read, name="orders", daemon=True).start()
    return orders


def _next(orders: SimpleQueue[tuple[str, Any] | Exception]) -> tuple[str, Any]:
    """The next order; raises what ended them."""
    order = orders.get()
    if isinstance(order, Exception):
        raise order
    return order


def _report(connection: Connection, fault: Fault) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent stops whoever has reported one
    try:
        connection.send((_FAULT, fault))
    except OSError:
        return
