"""Who is joined: the config's fields, then torchrun, then what jax knows."""

from __future__ import annotations

import pytest

from wbc_jax.config import RuntimeConfig
from wbc_jax.errors import UsageError
from wbc_jax.runtime.launchers import find_launch

TORCHRUN = {"MASTER_ADDR": "node7", "MASTER_PORT": "29500", "WORLD_SIZE": "4", "RANK": "3"}
OPEN_MPI_4 = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:3"}
OPEN_MPI_5 = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
SLURM = {"SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "node[1-2]"}


def test_a_process_with_nothing_set_is_alone() -> None:
    assert find_launch(RuntimeConfig(), {}) is None


def test_explicit_fields_go_before_any_launcher() -> None:
    runtime = RuntimeConfig(coordinator="host0:1234", num_processes=2, process_id=1)
    launch = find_launch(runtime, TORCHRUN | SLURM)
    assert launch is not None
    assert launch.arguments == {
        "coordinator_address": "host0:1234",
        "num_processes": 2,
        "process_id": 1,
    }


def test_torchrun_goes_before_slurm_which_may_have_started_it() -> None:
    launch = find_launch(RuntimeConfig(), TORCHRUN | SLURM)
    assert launch is not None
    assert launch.found_by == "torchrun"
    assert launch.arguments == {
        "coordinator_address": "node7:29500",
        "num_processes": 4,
        "process_id": 3,
    }


def test_torchrun_keeps_its_port_and_gives_each_process_one_device() -> None:
    more = {"TORCHELASTIC_USE_AGENT_STORE": "True", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    launch = find_launch(RuntimeConfig(), TORCHRUN | more)
    assert launch is not None
    assert launch.arguments["coordinator_address"] == "node7:29501"
    assert launch.arguments["local_device_ids"] == 1


@pytest.mark.parametrize(
    ("environment", "method"),
    [
        (SLURM, "slurm"),
        (OPEN_MPI_4, "ompi"),
        (SLURM | OPEN_MPI_4, "ompi"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, None),
    ],
)
def test_clusters_that_jax_reads_itself(environment: dict[str, str], method: str | None) -> None:
    launch = find_launch(RuntimeConfig(), environment)
    assert launch is not None
    assert launch.arguments == {"cluster_detection_method": method}


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_NTASKS": "2"},  # inside an allocation, but not started by srun
        SLURM | {"SLURM_NTASKS": "1"},
        TORCHRUN | {"WORLD_SIZE": "1"},
        OPEN_MPI_5 | {"OMPI_COMM_WORLD_SIZE": "1"},
        {"TPU_WORKER_HOSTNAMES": "localhost"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"},
    ],
)
def test_what_does_not_name_a_group_is_alone(environment: dict[str, str]) -> None:
    assert find_launch(RuntimeConfig(), environment) is None


@pytest.mark.parametrize("environment", [OPEN_MPI_5, SLURM | OPEN_MPI_5])
def test_open_mpi_5_is_not_taken_for_separate_runs(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="2 processes of an mpirun") as caught:
        find_launch(RuntimeConfig(), environment)
    for remedy in ("--runtime.cluster mpi4py", "--runtime.cluster off"):
        assert remedy in caught.value.remedy
    launch = find_launch(RuntimeConfig(cluster="mpi4py"), environment)
    assert launch is not None
    assert launch.arguments == {"cluster_detection_method": "mpi4py"}
    assert find_launch(RuntimeConfig(cluster="off"), environment) is None


def test_a_named_cluster_is_joined_and_off_means_alone() -> None:
    launch = find_launch(RuntimeConfig(cluster="k8s"), {})
    assert launch is not None
    assert launch.arguments == {"cluster_detection_method": None}  # jax has no name for it
    assert find_launch(RuntimeConfig(cluster="off"), TORCHRUN | SLURM) is None


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        (RuntimeConfig(coordinator="host0:1"), "together"),
        (RuntimeConfig(coordinator="host0", num_processes=2, process_id=0), "HOST:PORT"),
        (RuntimeConfig(coordinator="host0:1", num_processes=2, process_id=2), "0 to 1"),
    ],
)
def test_fields_that_do_not_fit_are_refused(runtime: RuntimeConfig, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        find_launch(runtime, {})


def test_a_variable_that_is_no_number_is_named() -> None:
    with pytest.raises(UsageError, match="WORLD_SIZE='four'"):
        find_launch(RuntimeConfig(), TORCHRUN | {"WORLD_SIZE": "four"})
