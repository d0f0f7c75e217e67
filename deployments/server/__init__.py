"""The model server: one model, named by digest, behind Seldon's REST protocol and the Open Inference Protocol.

Started as `python -m prefect_mlops.deployments.server CONFIG`, a path or the JSON document itself. It needs
neither Prefect nor any other part of this library: a store with the release, or a folder and the digests of
its files, and a place for its records.
"""
