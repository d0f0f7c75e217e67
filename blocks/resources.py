"""What a step of a flow needs of the machine that it runs on."""

from __future__ import annotations

from pydantic import Field

from prefect_mlops.blocks._canonical import Value


class StepResources(Value):
    """What a step may take of a machine; 0 leaves it open, so that a form needs no choice of kinds."""

    cpus: int = Field(default=0, ge=0, le=1024, title="CPUs", description="How many it computes on; 0 for all.")
    memory_mib: int = Field(
        default=0, ge=0, le=2**24, title="Memory", description="How many MiB it needs; 0 for whatever there is."
    )
    gpus: int = Field(default=0, ge=0, le=64, title="GPUs", description="How many graphics processors it needs.")
