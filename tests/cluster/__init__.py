"""Tests on a real Kubernetes cluster: a node that they start themselves, or the one that `KUBECONFIG` names.

`python -m tests.cluster COMMAND...` runs a command beside a node of its own, in whose network it then lives.
"""
