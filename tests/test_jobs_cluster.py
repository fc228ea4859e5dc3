"""Batches on a Ray cluster: two machines in one, of which one is killed; and clusters that are not there."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jobs_task import clips_of, job_of
from vidgen.errors import ConfigError, VidgenError
from vidgen.jobs import batch, ledger
from vidgen.jobs.cluster import on_ray

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one processor each beside a head that has none."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_clip_is_done_once_or_listed_though_a_node_is_killed(tmp_path: Path, cluster: Any) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    contents = {f"d{index % 7}/{index}": b"wrong" if index % 50 == 7 else b"%d" % index for index in range(300)}

    def kill() -> None:
        while len(ledger.read(tmp_path / "out").entries) < 60:
            time.sleep(0.1)
        cluster.remove_node(nodes[0], allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    report = batch.run(job_of(tmp_path, seconds=0.02), clips_of(tmp_path, contents), engine=on_ray(cluster.address, 2))
    killer.join(10)
    assert not killer.is_alive()
    assert (report.num_done, report.num_failed) == (294, 6)
    for name, data in contents.items():
        output = tmp_path / "out" / f"{name}.out"
        assert (output.read_bytes() == data[::-1]) if data != b"wrong" else not output.exists()
    lines = [line for line in (tmp_path / "out" / ledger.NAME).read_text().splitlines() if '"status": "done"' in line]
    assert len(lines) == 294


def test_a_head_that_dies_is_one_line_and_the_next_start_continues(tmp_path: Path, cluster: Any) -> None:
    cluster.add_node(num_cpus=1)
    contents = {f"{index}": b"%d" % index for index in range(400)}

    def kill() -> None:
        while len(ledger.read(tmp_path / "out").entries) < 20:
            time.sleep(0.1)
        cluster.head_node.kill_gcs_server()

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(VidgenError, match="the head of the Ray cluster is gone"):
        batch.run(job_of(tmp_path, seconds=0.1), clips_of(tmp_path, contents), engine=on_ray(cluster.address, 1))
    report = batch.run(job_of(tmp_path, seconds=0.1), clips_of(tmp_path, contents))
    assert report.num_before >= 20
    assert report.num_before + report.num_done == 400


def test_a_cluster_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConfigError, match=rf"`address` {address}: nothing answers there"):
        batch.run(job_of(tmp_path), clips_of(tmp_path, {"x": b"1"}), engine=on_ray(address))
