"""Nouns: the values that are recorded, and the systems a release touches, each a Prefect block."""

from prefect_mlops.blocks._canonical import Digest, Label
from prefect_mlops.blocks.entry import Actor, Entry, Run
from prefect_mlops.blocks.environment import Environment, Policy, ServingTarget
from prefect_mlops.blocks.errors import MlopsError
from prefect_mlops.blocks.graph import Graph
from prefect_mlops.blocks.local_serving import LocalServing
from prefect_mlops.blocks.log import ReleaseLog
from prefect_mlops.blocks.model_tests import (
    Answers,
    BeatsBaseline,
    BeatsChampion,
    Custom,
    Direction,
    Floor,
    Generalises,
    Invariant,
    KnownSignal,
    ModelTest,
    NoLargerThan,
    NoSlowerThan,
    NotTooGood,
    PerSlice,
)
from prefect_mlops.blocks.recipe import Recipe
from prefect_mlops.blocks.records import Record
from prefect_mlops.blocks.registry import ModelRegistry
from prefect_mlops.blocks.release import File, Release, Snapshot
from prefect_mlops.blocks.resources import StepResources
from prefect_mlops.blocks.seldon_serving import SeldonServing
from prefect_mlops.blocks.split import Address, Arm, Counters, Observed, Split
from prefect_mlops.blocks.store import Store
from prefect_mlops.blocks.verify import Fault, Verification, verify

__all__ = [
    "Actor",
    "Address",
    "Answers",
    "Arm",
    "BeatsBaseline",
    "BeatsChampion",
    "Counters",
    "Custom",
    "Digest",
    "Direction",
    "Entry",
    "Environment",
    "Fault",
    "File",
    "Floor",
    "Generalises",
    "Graph",
    "Invariant",
    "KnownSignal",
    "Label",
    "LocalServing",
    "MlopsError",
    "ModelRegistry",
    "ModelTest",
    "NoLargerThan",
    "NoSlowerThan",
    "NotTooGood",
    "Observed",
    "PerSlice",
    "Policy",
    "Recipe",
    "Record",
    "Release",
    "ReleaseLog",
    "Run",
    "SeldonServing",
    "ServingTarget",
    "Snapshot",
    "Split",
    "StepResources",
    "Store",
    "Verification",
    "verify",
]
