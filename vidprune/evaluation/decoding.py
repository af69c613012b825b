"""Decoding in worker processes that may hang, crash or be killed without taking the run with them.

Each worker is a fresh interpreter with a pipe of its own: nothing is shared that a dying worker could leave locked, and
a user's script needs no `if __name__ == "__main__"`. A thread of this process hands out the files and collects the
frames into a bounded queue, so that decoding goes on while the model runs and memory stays bounded.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe, wait

from vidprune.errors import MissingDependencyError, UnknownNameError, VidpruneError
from vidprune.evaluation.transport import Decoded, receive, send
from vidprune.types import VideoFrames

Decode = Callable[[str], VideoFrames]
Prepare = Callable[[VideoFrames], VideoFrames]
Job = tuple[int, str]  # position in the manifest, path


class DecodeWorkerError(VidpruneError):
    """Workers that cannot start, or that lack what every file needs."""


def decode_all(
    decode: Decode,
    jobs: Iterable[Job],
    *,
    workers: int,
    timeout_s: float,
    ahead: int | None = None,
    prepare: Prepare | None = None,
) -> Generator[Decoded]:
    """Decode every job; results come in the order in which they are ready, one for each job.

    Args:
        decode: a function of the path; it must be picklable (a module's function, or a `partial` of one).
        workers: processes; 0 decodes in this one, where a debugger sees it and no time limit holds.
        timeout_s: a file that takes longer is given up: its worker is killed and replaced.
        ahead: videos that may wait decoded; by default two, or one per worker where those are more.
        prepare: what is done to a decoded video before it waits, such as starting its upload; here, not in a worker.

    Raises:
        DecodeWorkerError: workers cannot start, or a decoder that was asked for is not there.
    """
    if workers == 0:
        for position, path in jobs:
            yield _prepared(decode_one(decode, position, path), prepare)
        return
    results: queue.Queue[Decoded | BaseException | None] = queue.Queue(maxsize=ahead or max(2, workers))
    dispatcher = _Dispatcher(decode, jobs, workers, timeout_s, results, prepare)
    thread = threading.Thread(target=dispatcher.run, name="decode-dispatcher", daemon=True)
    thread.start()
    try:
        while (item := results.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        dispatcher.stopping.set()
        thread.join()


def decode_one(decode: Decode, position: int, path: str) -> Decoded:
    """Decode in this process; a file that cannot be decoded is a result, a missing decoder is an error."""
    start = time.perf_counter()
    video, error = None, None
    try:
        video = decode(path)
    except (MissingDependencyError, UnknownNameError):
        raise
    except VidpruneError as problem:
        error = str(problem)
    except Exception as problem:  # whatever a decoder makes of a broken file must not end the run
        error = f"cannot decode {path!r}: {type(problem).__name__}: {' '.join(str(problem).split())}"
    return Decoded(position, video, error, time.perf_counter() - start)


def _prepared(item: Decoded, prepare: Prepare | None) -> Decoded:
    return item if prepare is None or item.video is None else replace(item, video=prepare(item.video))


def worker_main(descriptor: int) -> None:
    """What a worker does: take jobs from its pipe and answer each, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _leave_with_parent()
    connection: Connection = Connection(descriptor)
    decode: Decode = connection.recv()
    connection.send("ready")
    try:
        while True:
            try:
                send(connection, decode_one(decode, *connection.recv()))
            except (MissingDependencyError, UnknownNameError) as error:
                connection.send(str(error))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass


def _leave_with_parent() -> None:
    """End this process when its parent is gone, even in the middle of a file that never ends."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Worker:
    """One worker process, its pipe, and the job it is on."""

    def __init__(self, decode: Decode) -> None:
        self.connection, theirs = Pipe()
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the worker)
        code = f"from vidprune.evaluation.decoding import worker_main; worker_main({theirs.fileno()})"
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self.stderr,
            stderr=self.stderr,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"},
        )
        theirs.close()
        self.ready = False
        self.job: Job | None = None
        self.started = time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # died at once: its pipe reads as closed, and is reported there
            self.connection.send(decode)

    def give(self, job: Job) -> None:
        self.job, self.started = job, time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # as above
            self.connection.send(job)

    def failed(self, reason: str) -> Decoded:
        """The result of a job that this worker will not finish."""
        assert self.job is not None
        position, path = self.job
        return Decoded(position, None, f"cannot decode {path!r}: {reason}", time.monotonic() - self.started)

    def close(self) -> int:
        """Kill the process; its exit status."""
        self.process.kill()
        self.connection.close()
        self.stderr.close()
        return self.process.wait()

    def last_words(self) -> str:
        self.stderr.seek(0)
        lines = self.stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no message"


class _Dispatcher:
    """Keeps every worker busy and puts one result per job into the queue, then None; an exception in its place."""

    def __init__(
        self,
        decode: Decode,
        jobs: Iterable[Job],
        workers: int,
        timeout_s: float,
        results: queue.Queue[Decoded | BaseException | None],
        prepare: Prepare | None,
    ) -> None:
        self.decode = decode
        self.jobs = iter(jobs)
        self.num_workers = workers
        self.timeout_s = timeout_s
        self.results = results
        self.prepare = prepare
        self.stopping = threading.Event()
        self.workers: list[_Worker] = []

    def run(self) -> None:
        try:
            self.workers = [_Worker(self.decode) for _ in range(self.num_workers)]
            while self.workers and not self.stopping.is_set():
                self._step()
            self._put(None)
        except BaseException as error:  # it belongs to whoever reads the results
            self._put(error)
        finally:
            for worker in self.workers:
                worker.close()

    def _step(self) -> None:
        """Wait for an answer or a time limit, then deal with whatever there is."""
        ready = wait([worker.connection for worker in self.workers], timeout=0.2)
        for worker in list(self.workers):
            if worker.connection in ready:
                self._answer(worker)
            elif worker.job is not None and time.monotonic() - worker.started > self.timeout_s:
                result = worker.failed(f"gave up after {self.timeout_s:g} s")
                self._replace(worker)
                self._put(result)

    def _answer(self, worker: _Worker) -> None:
        try:
            answer = receive(worker.connection)
        except (EOFError, OSError):
            self._died(worker)
            return
        if isinstance(answer, str) and worker.ready:
            raise DecodeWorkerError(answer)
        worker.ready = True
        worker.job = None
        self._next_job(worker)  # before the result waits for room: the worker goes on meanwhile
        if isinstance(answer, Decoded):
            self._put(_prepared(answer, self.prepare))

    def _next_job(self, worker: _Worker) -> None:
        job = next(self.jobs, None)
        if job is not None:
            worker.give(job)
            return
        worker.close()
        self.workers.remove(worker)

    def _died(self, worker: _Worker) -> None:
        if not worker.ready:
            worker.process.wait()
            raise DecodeWorkerError(f"decode workers cannot start: {worker.last_words()}")
        worker.process.wait()
        status = worker.process.returncode
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        result = worker.failed(f"the decoder died ({how})") if worker.job is not None else None
        self._replace(worker)
        if result is not None:
            self._put(result)

    def _replace(self, worker: _Worker) -> None:
        worker.close()
        self.workers[self.workers.index(worker)] = _Worker(self.decode)

    def _put(self, item: Decoded | BaseException | None) -> None:
        while not self.stopping.is_set():
            try:
                return self.results.put(item, timeout=0.2)
            except queue.Full:
                continue
