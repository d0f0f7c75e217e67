"""The command line: `prefect-mlops`.

Exit codes: 0 fine; 1 the answer is no (faults found, what is served is not what was asked for, a gate
stopped it, bytes are damaged); 2 the command or what it was given is wrong; 3 something that is needed
cannot be reached or is not there; 4 somebody else is at it, or was faster; 70 a fault of this program;
130 interrupted; 141 nobody reads the output any more.
"""

from prefect_mlops.deployments.cli._main import main

__all__ = ["main"]
