"""The CreditCo story on this machine, told under traffic: what `make demo` shows."""

from prefect_mlops.deployments.demo._telling import tell_story

__all__ = ["tell_story"]
