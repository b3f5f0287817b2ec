"""Dataclasses of the results of `qvft check RUN`: recorded hashes against current ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from qvft.errors import VerificationError

State = Literal["ok", "differs", "missing", "not recorded"]


@dataclass(frozen=True)
class Verified:
    """One thing that was looked at.

    Attributes:
        what: a file, or what a hash is over.
        state: `missing`: it cannot be read here; `not recorded`: nothing to hold it against.
        recorded, found: SHA-256, in hexadecimal, or counts.
        detail: in words, where there is more to say.
    """

    what: str
    state: State
    recorded: str | None = None
    found: str | None = None
    detail: str = ""


def compared(what: str, recorded: str | None, found: str | None, *, detail: str = "") -> Verified:
    """The finding on two values, of which either may be absent."""
    if recorded is None:
        return Verified(what, "not recorded", None, found, detail or "written by an older version")
    if found is None:
        return Verified(what, "missing", recorded, None, detail)
    return Verified(what, "ok" if recorded == found else "differs", recorded, found, detail)


@dataclass(frozen=True)
class RunFindings:
    """Everything that was looked at in a run folder.

    Attributes:
        versions: (then, now) by library, of those that are another version now.
        warnings: what the run's reports say that a user should act on.
    """

    run: str
    verified: tuple[Verified, ...]
    versions: Mapping[str, tuple[str, str]]
    warnings: tuple[str, ...] = ()

    def raise_if_failed(self) -> None:
        """Ends the check of a run that does not hold what it says.

        Raises:
            VerificationError: something differs or is missing.
        """
        failed = [one.what for one in self.verified if one.state in ("differs", "missing")]
        if failed:
            raise VerificationError(
                f"{len(failed)} of {len(self.verified)} do not match: {', '.join(failed)}"
            )
