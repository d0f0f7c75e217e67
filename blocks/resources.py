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

    def job_variables(self) -> dict[str, str | int]:
        """What a run needs on a work pool of type kubernetes; what is left open here is left out."""
        variables = {"cpu": str(self.cpus), "memory": f"{self.memory_mib}Mi", "gpus": self.gpus}
        wanted = {"cpu": self.cpus, "memory": self.memory_mib, "gpus": self.gpus}
        return {name: value for name, value in variables.items() if wanted[name]}
