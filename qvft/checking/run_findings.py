"""Dataclasses of the results of `qvft check RUN`: recorded hashes against current ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from qvft.errors import VerificationError

State = Literal["ok", "differs", "missing", "not recorded"]


@dataclass(frozen=True)
class Verified:
    """Result of one comparison.

    Attributes:
        what: a file, or the content of a hash.
        state: `missing`: cannot be read; `not recorded`: nothing to compare with.
        recorded, found: SHA-256, in hexadecimal, or counts.
        detail: further explanation.
    """

    what: str
    state: State
    recorded: str | None = None
    found: str | None = None
    detail: str = ""


def compared(what: str, recorded: str | None, found: str | None, *, detail: str = "") -> Verified:
    """Result of comparing two values, either of which may be absent."""
    if recorded is None:
        return Verified(what, "not recorded", None, found, detail or "written by an older version")
    if found is None:
        return Verified(what, "missing", recorded, None, detail)
    return Verified(what, "ok" if recorded == found else "differs", recorded, found, detail)


@dataclass(frozen=True)
class RunFindings:
    """Results of the check of a run folder.

    Attributes:
        versions: (then, now) per library with a changed version.
        warnings: warnings of the run's reports.
    """

    run: str
    verified: tuple[Verified, ...]
    versions: Mapping[str, tuple[str, str]]
    warnings: tuple[str, ...] = ()

    def raise_if_failed(self) -> None:
        """Raises if the run differs from its records.

        Raises:
            VerificationError: something differs or is missing.
        """
        failed = [one.what for one in self.verified if one.state in ("differs", "missing")]
        if failed:
            raise VerificationError(
                f"{len(failed)} of {len(self.verified)} do not match: {', '.join(failed)}"
            )
