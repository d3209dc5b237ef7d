"""Who started this process, and beside how many others: read from the config and from launchers' variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wbc_jax.config import RuntimeConfig
from wbc_jax.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How to join the other processes.

    Attributes:
        found_by: the config field or launcher that says so.
        arguments: of `jax.distributed.initialize`.
    """

    found_by: str
    arguments: Mapping[str, Any]


def find_launch(runtime: RuntimeConfig, environment: Mapping[str, str]) -> Launch | None:
    """How this process joins others; None: it is alone.

    The config's own fields come first, then torchrun's variables, then those of Open MPI, SLURM and TPU pods, which
    jax reads itself. mpirun goes before SLURM, under which it may run: it gives its processes numbers of its own.
    Kubernetes and other MPI are joined only when `runtime.cluster` names them, because nothing in their environment
    tells a member of a group from a process that stands alone: a pod of an indexed Job knows its index, but not how
    many there are, and such Jobs serve separate runs as well.

    Raises:
        UsageError: fields or variables that do not fit together, or a group that jax cannot read.
    """
    if (explicit := _explicit(runtime)) is not None:
        return explicit
    if runtime.cluster == "off":
        return None
    if runtime.cluster != "auto":
        return _by_jax(runtime.cluster)
    if (torchrun := _torchrun(environment)) is not None:
        return torchrun
    if (processes := _number(environment, "OMPI_COMM_WORLD_SIZE")) > 1:
        if "OMPI_MCA_orte_hnp_uri" not in environment:  # jax's way to process 0, gone since Open MPI 5
            raise UsageError(
                f"{processes} processes of an mpirun that does not tell them where process 0 is",
                expected="Open MPI up to version 4",
                where="environment",
                remedy="with mpi4py installed --runtime.cluster mpi4py makes them one run; --runtime.cluster off "
                "makes each a run of its own",
            )
        return _by_jax("ompi")
    if _number(environment, "SLURM_NTASKS") > 1 and "SLURM_STEP_NODELIST" in environment:
        return _by_jax("slurm")
    if "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        return _by_jax("tpu")
    return None


def _explicit(runtime: RuntimeConfig) -> Launch | None:
    given = {
        "coordinator_address": runtime.coordinator,
        "num_processes": runtime.num_processes,
        "process_id": runtime.process_id,
    }
    if all(value is None for value in given.values()):
        return None
    if any(value is None for value in given.values()):
        raise UsageError(
            f"only {', '.join(name for name, value in given.items() if value is not None)} given",
            expected="coordinator, num_processes and process_id together",
            where="runtime",
            remedy="for example --runtime.coordinator host0:1234 --runtime.num-processes 2 --runtime.process-id 0",
        )
    address, count, index = runtime.coordinator or "", runtime.num_processes or 0, runtime.process_id or 0
    if ":" not in address or not address.rsplit(":", 1)[1].isdigit():
        raise UsageError(
            f"{address!r} is no address", expected="HOST:PORT of process 0", where="runtime.coordinator"
        )
    if not index < count:
        raise UsageError(
            f"process {index} of {count}", expected=f"0 to {count - 1}", where="runtime.process_id"
        )
    return Launch(found_by="runtime.coordinator", arguments=given) if count > 1 else None


def _torchrun(environment: Mapping[str, str]) -> Launch | None:
    names = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")
    if any(name not in environment for name in names) or _number(environment, "WORLD_SIZE") < 2:
        return None
    port = _number(environment, "MASTER_PORT")
    # torchrun's agent may keep that port for its own store: then the next one is ours.
    port += environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    arguments: dict[str, Any] = {
        "coordinator_address": f"{environment['MASTER_ADDR']}:{port}",
        "num_processes": _number(environment, "WORLD_SIZE"),
        "process_id": _number(environment, "RANK"),
    }
    if _number(environment, "LOCAL_WORLD_SIZE") > 1:  # a process for each device of a host
        arguments["local_device_ids"] = _number(environment, "LOCAL_RANK")
    return Launch(found_by="torchrun", arguments=arguments)


def _by_jax(cluster: str) -> Launch:
    # jax has no name of its own for these: it finds them where it is told none.
    method = None if cluster in ("tpu", "k8s") else cluster
    return Launch(found_by=cluster, arguments={"cluster_detection_method": method})


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "0")
    if not text.strip().isdigit():
        raise UsageError(
            f"{name}={text!r}",
            expected="a whole number",
            where="environment",
            remedy=f"unset {name}, or --runtime.cluster off",
        )
    return int(text)
