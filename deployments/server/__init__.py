"""The model server: one model, named by digest, behind Seldon's REST protocol and the Open Inference Protocol.

Started as `python -m prefect_mlops.deployments.server CONFIG.json`. It needs neither Prefect nor
any other part of this library: a folder, the digests of its files, and a place for its records.
"""
