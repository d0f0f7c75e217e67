"""The store: objects named by their content, and journals, in a folder or a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, PrivateAttr, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from prefect_mlops.blocks import _location, _tree
from prefect_mlops.blocks._backend import Backend
from prefect_mlops.blocks._canonical import Value
from prefect_mlops.blocks._contents import Contents
from prefect_mlops.blocks._folder import Folder
from prefect_mlops.blocks._guard import IDENTITY, Guard
from prefect_mlops.blocks._journal import NAME, NUMBER, Journal
from prefect_mlops.blocks._objects import PREFIX, Objects, digest_of
from prefect_mlops.blocks._packs import INDEXES, PACKS, Packs, name_of
from prefect_mlops.blocks._packs_proof import Proof
from prefect_mlops.blocks._segments import RECORDS, Segments, is_segment
from prefect_mlops.blocks.commit import Commit
from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.blocks.release import Diff, Release, Snapshot

__all__ = ["Journal", "Store"]

_V = TypeVar("_V", bound=Value)


class Store(Block):
    """Keeps data, models, releases and the log in a folder or an S3-compatible bucket; overwrites nothing.

    Example:
        ```python
        from prefect_mlops.blocks.store import Store
        store = Store.load("BLOCK_NAME")
        ```
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    _block_type_name: ClassVar[str] = "MLOps Store"
    _block_type_slug: ClassVar[str] = "mlops-store"
    _documentation_url: ClassVar[Any] = "https://docs.prefect.io/v3/concepts/blocks"

    url: str = Field(description="An absolute folder, `file:///folder` or `s3://bucket/prefix`.")
    credentials: str | None = Field(
        default=None,
        description="Name of the block with the bucket's keys: `aws-credentials/NAME` or `minio-credentials/NAME`.",
    )
    endpoint: str | None = Field(
        default=None,
        description="URL of an S3-compatible server; if empty, where AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL says, "
        "else at AWS.",
    )
    region: str | None = Field(
        default=None, description="Region of the bucket, such as `eu-central-1`; if empty, what AWS_REGION says."
    )

    _backend: Backend | None = PrivateAttr(default=None)
    _guard: Guard | None = PrivateAttr(default=None)
    _packs: Packs | None = PrivateAttr(default=None)

    @field_validator("url")
    @classmethod
    def _checked_url(cls, value: str) -> str:
        return _checked(_location.place, value)

    @field_validator("endpoint")
    @classmethod
    def _checked_endpoint(cls, value: str | None) -> str | None:
        return value and _checked(_location.endpoint, value)

    @field_validator("credentials")
    @classmethod
    def _checked_credentials(cls, value: str | None) -> str | None:
        return value and _checked(_location.credentials, value)

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        private = {**(state.get("__pydantic_private__") or {}), "_backend": None, "_guard": None, "_packs": None}
        return {**state, "__pydantic_private__": private}

    @property
    def id(self) -> str:
        """Drawn once, when an empty place became a store; asking for it makes an empty place a store.

        Raises:
            StoreRefused: If the place is not fit to be one, or holds things but no identity.
            ObjectDamaged: If the identity was changed.
            StoreUnreachable: If the store does not answer.
        """
        return self._guarded.identity()

    def known_as(self, endpoint: str | None, region: str | None) -> Store:
        """This store over the same connection, that tells others, such as pods, to reach it by these.

        Args:
            endpoint: URL of its server for others, who may be where another one leads to it.
            region: Region of the bucket.
        """
        self._guard = self._guarded  # made now, so that both have the same
        return self.model_copy(update={"endpoint": endpoint, "region": region})

    def put(self, data: bytes) -> str:
        """Keep `data`, and return its digest. What is there already is read back and compared.

        Raises:
            ObjectDamaged: If what is there already has other bytes.
            StoreRefused: If the place is not fit to be a store; nothing was written.
            StoreUnreachable: If the store does not answer.
        """
        return self._objects.put(data)

    def get(self, digest: str) -> bytes:
        """The bytes that have `digest`, checked.

        Raises:
            ObjectMissing: If there are none.
            ObjectDamaged: If the bytes have another digest.
            StoreUnreachable: If the store does not answer.
        """
        return self._objects.get(digest)

    def has(self, digest: str) -> bool:
        """Whether an object with that digest is there; its bytes are not looked at."""
        return self._objects.has(digest)

    def check_object(self, digest: str) -> None:
        """Read every byte of one object.

        Raises:
            ObjectMissing, ObjectDamaged: If it is not there, or not what its name says.
        """
        for _ in self._objects.stream(digest):
            pass

    def add(self, path: Path) -> Snapshot:
        """Keep a file, or every file of a folder, as plain whole objects, and their manifest.

        Files stream, so that no whole file is in memory. Empty folders are not kept.

        Raises:
            Invalid: If something is no plain file, a link leads out of the folder, or a file changes
                while it is read. No manifest was written.
            ObjectDamaged: If what is there already has other bytes.
            StoreRefused, StoreUnreachable: As in `put`.
        """
        return _tree.add(self._objects, self._guarded.lanes, Path(path))

    def pack(self, path: Path) -> Snapshot:
        """Keep the same in packs, where only what is new takes space; the snapshot's id is the same.

        Large files are cut where their content says, so that an edit adds what lies around it; many small
        files go into one object. `add` is for what others load by its key, such as models.

        Raises:
            Invalid, ObjectDamaged, StoreRefused, StoreUnreachable: As in `add`.
        """
        return _tree.pack(self._guarded, self._packed, self.url, self._objects, Path(path))

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """The manifest with that id.

        Raises:
            Invalid: If the object is no manifest.
            ObjectMissing, ObjectDamaged, StoreUnreachable: As in `get`.
        """
        return self._document(Snapshot, snapshot_id)

    def checkout(self, snapshot_id: str, folder: Path) -> Snapshot:
        """Write the files of a snapshot to `folder`, each checked; the folder appears whole or not at all.

        A folder that holds just this snapshot already is checked and left as it is.

        Raises:
            Invalid: If `folder` holds other files, or the object is no manifest.
            ObjectMissing, ObjectDamaged, StoreUnreachable: As in `get`.
        """
        snapshot = self.snapshot(snapshot_id)
        _tree.checkout(self._contents, snapshot, Path(folder))
        return snapshot

    def check(self, snapshot_id: str) -> None:
        """Read every byte of a snapshot's manifest and files.

        Raises:
            Invalid: If the object is no manifest.
            ObjectMissing, ObjectDamaged, StoreUnreachable: As in `get`.
        """
        for file in self.snapshot(snapshot_id).files:
            for _ in _tree.content(self._contents, file):
                pass

    def diff(self, before: str, after: str) -> Diff:
        """What differs between two snapshots, by path.

        Raises:
            Invalid, ObjectMissing, ObjectDamaged, StoreUnreachable: As in `snapshot`.
        """
        return Diff.between(self.snapshot(before), self.snapshot(after))

    def commit_at(self, commit_id: str) -> Commit:
        """The commit with that id.

        Raises:
            Invalid: If the object is no commit.
            ObjectMissing, ObjectDamaged, StoreUnreachable: As in `get`.
        """
        return self._document(Commit, commit_id)

    def release(self, digest: str) -> Release:
        """The release document with that digest.

        Raises:
            Invalid: If the object is no release document.
            ObjectMissing, ObjectDamaged, StoreUnreachable: As in `get`.
        """
        return self._document(Release, digest)

    def put_release(self, release: Release) -> str:
        """Keep a release document, and return its digest. Raises what `put` raises."""
        return self.put(release.canonical())

    def packs_proof(self) -> Proof:
        """What says which packs and indexes are not as they were written."""
        return Proof(self._guarded, self.url)

    def digests(self) -> Iterator[str]:
        """Every object that a listing shows, in the order of their digests."""
        return self._objects.digests()

    def records(self, *rooms: str) -> Segments:
        """The prediction records that model servers took here: all, or those of a namespace, or of its service."""
        return Segments(self._guarded, self.url, rooms)

    def strays(self) -> Iterator[str]:
        """Every key that is no object's, no journal entry's, no segment's of records, and not `store.json`."""
        return (key for key in self._guarded.list("") if not _known(key))

    def journal(self, name: str) -> Journal:
        """The journal called `name`, such as `log/production`; it need not exist yet.

        Raises:
            Invalid: If that is no name for one.
        """
        return Journal(self._guarded, self.url, name)

    def journals(self, room: str = "") -> tuple[str, ...]:
        """The names of all journals that a listing shows, or of those whose names begin with `room`.

        Only what is below a room such as `log/` is listed, which has an end where the whole store may have none.
        """
        return tuple(sorted({key.rpartition("/")[0] for key in self._guarded.list(room) if _is_entry(key)}))

    @property
    def _guarded(self) -> Guard:
        if self._guard is None:
            self._guard = Guard(self._backend or self._connect(), self.url)
        return self._guard

    @property
    def _objects(self) -> Objects:
        return Objects(self._guarded, self.url)

    @property
    def _packed(self) -> Packs:
        if self._packs is None:
            self._packs = Packs(self._guarded, self.url)
        return self._packs

    @property
    def _contents(self) -> Contents:
        return Contents(self._objects, self._packed)

    def _connect(self) -> Backend:
        where = _location.place(self.url)
        if isinstance(where, Path):
            return Folder(where)
        from prefect_mlops.blocks._bucket import connect  # it takes a second

        return connect(self.url, where, self.credentials, self.endpoint, self.region)

    def _document(self, kind: type[_V], digest: str) -> _V:
        data = self.get(digest)
        try:
            value = kind.model_validate_json(data)
            if value.canonical() == data:
                return value
        except (ValidationError, TypeError):
            pass
        raise Invalid(f"the object {digest}", f"is a {kind.__name__.lower()} in canonical form", data[:40])


def _known(key: str) -> bool:
    if key.startswith(PREFIX):
        return digest_of(key) is not None
    if key.startswith((PACKS, INDEXES)):
        return name_of(key) is not None
    if key.startswith(RECORDS):
        return is_segment(key)
    return key == IDENTITY or _is_entry(key)


def _is_entry(key: str) -> bool:
    name, _, number = key.rpartition("/")
    return bool(NAME.fullmatch(name) and NUMBER.fullmatch(number))


def _checked(check: Any, value: str) -> str:
    try:
        check(value)
    except Invalid as error:
        raise PydanticCustomError("store", "{sentence}", {"sentence": str(error)}) from error
    return value
