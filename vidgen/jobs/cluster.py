"""Clips on a Ray cluster: actors that hold what the task needs, on any of its machines.

All machines see the inputs and the output folder under the same paths. Ray starts a dead actor again, on another machine where its
own is gone; which clips it was at, and what becomes of them, is decided here, since outputs appear by a rename and the ledger
lies beside them: the cluster keeps no state that matters.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import vidgen
from vidgen.errors import ConfigError, MissingExtraError, VidgenError, install_hint
from vidgen.jobs.clips import Clip
from vidgen.jobs.engines import MAX_LOST_STARTS, Begin, Engine, Outcome, Task, Work, attempt, error_of, outcome_of, reason_of

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 30.0
_CONNECT_SECONDS = 5.0
_HEAD_SECONDS = 5.0
_REST_SECONDS = 1.0
_LAST_WORDS_SECONDS = 600


def on_ray(address: str | None = None, num_workers: int | None = None, gpus: float | None = None) -> Engine:
    """Actors of a Ray cluster.

    Args:
        address: of the cluster, `auto` for the one of this machine; None starts one here for the time of the batch.
        num_workers: how many; None for as many as there is room for.
        gpus: for each, also a fraction.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    # Before Ray is imported, which would report on its use.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(_LAST_WORDS_SECONDS))  # it would end this process
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("Ray is not installed", hint=install_hint("cluster")) from error

    def run(work: Work, clips: deque[Clip], begin: Begin) -> Iterator[Outcome]:
        if not clips:
            return
        _connect(ray, address)
        try:
            wanted = num_workers or _room(ray, gpus)
            _check_room(ray, gpus)
            yield from _Actors(ray, work, min(wanted, len(clips)), gpus).run(clips, begin)
        finally:
            ray.shutdown()

    return run


def _connect(ray: Any, address: str | None) -> None:
    if address is not None and not _answers(address):
        raise ConfigError(f"`address` {address}: nothing answers there", hint="start Ray on its head first: ray start --head")
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise ConfigError(f"`address` {address}: no Ray cluster is there ({reason_of(error)[:200]})") from error


def _answers(address: str) -> bool:
    """Whether something listens at HOST:PORT; also for other forms of addresses, which Ray itself looks up."""
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if not separator or not port.isdecimal():
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError):
        return False
    return True


def _room(ray: Any, gpus: float | None) -> int:
    """How many workers fit, with a processor core each."""
    resources = ray.cluster_resources()
    room = int(resources.get("CPU", 1))
    return max(1, min(room, int(resources.get("GPU", 0) / gpus)) if gpus else room)


def _check_room(ray: Any, gpus: float | None) -> None:
    has = ray.cluster_resources().get("GPU", 0)
    if gpus and has < min(gpus, 1):
        raise ConfigError(f"`gpus` {gpus:g}: the cluster has {has:g} GPUs")


class Worker:
    """What an actor is; Ray makes it on some machine."""

    def __init__(self, task: str, options: Mapping[str, Any], folder: str) -> None:
        """Note what to do; it is opened by the first call, whose answer can say what is wrong."""
        self._work, self._folder = Work(task, options), folder
        self._task: Task | None = None

    def hello(self) -> dict[str, Any]:
        """Which vidgen this is, and whether it can work."""
        about = {"version": vidgen.__version__, "node": os.uname().nodename}
        try:
            self._open()
        except Exception as error:
            hint = error.hint if isinstance(error, VidgenError) else None
            return {**about, "error": {"kind": type(error).__name__, "message": reason_of(error), "hint": hint}}
        return about

    def _open(self) -> Task:
        if self._task is None:
            if not os.path.isdir(self._folder):
                raise ConfigError(
                    f"{os.uname().nodename}: sees no folder {self._folder}", hint="all machines need the same shared folders"
                )
            os.chdir(self._folder)
            self._task = self._work.open()
        return self._task

    def do(self, clip: dict[str, Any]) -> dict[str, Any]:
        """Do a clip; see `attempt`."""
        return attempt(self._open(), Clip(**clip))


class _Actors:
    def __init__(self, ray: Any, work: Work, num_workers: int, gpus: float | None) -> None:
        self._ray = ray
        # Ray starts them again; what they were at is given out anew here, so that every clip is counted.
        remote = ray.remote(num_cpus=1, num_gpus=gpus or 0, max_restarts=-1, max_task_retries=0)(Worker)
        self._actors = [remote.remote(work.task, dict(work.options), os.getcwd()) for _ in range(num_workers)]

    def run(self, clips: deque[Clip], begin: Begin) -> Iterator[Outcome]:
        """See `vidgen.jobs.engines.Engine`."""
        ray = self._ray
        head = ray.get_runtime_context().gcs_address
        pending: dict[Any, tuple[Any, Clip | None]] = {actor.hello.remote(): (actor, None) for actor in self._actors}
        idle: list[Any] = []
        resting: list[Any] = []
        num_lost, looked, warned = 0, time.monotonic(), time.monotonic()
        while clips or any(clip is not None for _, clip in pending.values()):
            while clips and idle:
                actor, clip = idle.pop(), clips.popleft()
                begin(clip)
                pending[actor.do.remote(asdict(clip))] = (actor, clip)
            done, _ = ray.wait(list(pending), num_returns=1, timeout=_REST_SECONDS) if pending else ([], [])
            now = time.monotonic()
            if now - looked > _HEAD_SECONDS:
                looked = now
                if not _answers(head):
                    raise VidgenError(
                        f"{head}: the head of the Ray cluster is gone", hint="run the same command again; it continues"
                    )
            if not done:
                if now - warned > _PATIENCE_SECONDS and not any(clip is not None for _, clip in pending.values()):
                    log.warning("no machine of the cluster has room for a worker, or it still starts; waiting")
                    warned = now
                if not pending:
                    time.sleep(_REST_SECONDS)
                # A dead actor gets work again when it answers, wherever and whenever there is room for it.
                pending |= {actor.hello.remote(): (actor, None) for actor in resting}
                resting = []
            for answer in done:
                warned = now
                actor, lost = pending.pop(answer)
                try:
                    reply = ray.get(answer)
                except ray.exceptions.RayTaskError as error:
                    raise VidgenError(f"a worker failed: {reason_of(error)}") from error
                except ray.exceptions.RayError as error:
                    resting.append(actor)
                    if lost is None and isinstance(error, ray.exceptions.ActorUnavailableError):
                        continue  # it is being started
                    num_lost += 1
                    cause = _cause(error)
                    log.warning("a worker died (%s); Ray starts it again", cause)
                    if num_lost >= MAX_LOST_STARTS * len(self._actors):
                        raise VidgenError(
                            f"workers died {num_lost} times in a row without finishing a clip; the last one: {cause}"
                        ) from error
                    if lost is not None:
                        yield Outcome(lost, "died", reason=f"the worker died of it ({cause})")
                    continue
                idle.append(actor)
                if lost is None:
                    _check(reply)
                else:
                    num_lost = 0
                    yield outcome_of(lost, reply)


def _check(reply: Mapping[str, Any]) -> None:
    if reply["version"] != vidgen.__version__:
        raise ConfigError(
            f"{reply['node']}: has vidgen {reply['version']}, and this machine {vidgen.__version__}",
            hint="install one version on all machines of the cluster",
        )
    if "error" in reply:
        raise error_of(**reply["error"])


def _cause(error: Exception) -> str:
    """What matters of a long message of Ray's: an error of Python's, where there is one."""
    errors = [
        line.strip() for line in str(error).splitlines() if re.match(r"\s*(ModuleNotFound|Import|Memory|Attribute)\w*Error:", line)
    ]
    return errors[-1][:200] if errors else "its process ended"
