"""Uploads files to a repository of the Hugging Face Hub in one commit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

from qvft.errors import FailedError, UserError, first_line

_REFUSED = (401, 403)


def upload(
    files: Mapping[str, Path | bytes], repo: str, *, private: bool, repo_type: str = "model"
) -> str:
    """Creates the repository if it is new and commits the files; returns the commit's address.

    Args:
        repo_type: `model` or `dataset`.

    Raises:
        UserError: the hub refuses the token or the card's metadata, or the repository is public
            and `private` is wanted.
        FailedError: the hub cannot be reached, or fails.
    """
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True, repo_type=repo_type)
        if private and not api.repo_info(repo, repo_type=repo_type).private:
            raise UserError(
                "is public", where=repo, expected="a private repository", do="add --public"
            )
        operations = [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in files.items()
        ]
        return api.create_commit(
            repo, operations, commit_message="Upload with qvft push", repo_type=repo_type
        ).commit_url
    except HfHubHTTPError as error:
        if error.response.status_code in _REFUSED:
            raise UserError(
                f"the hub refuses it ({error.response.status_code})",
                where=repo,
                expected="a token that may write there",
                do="run `hf auth login`, or set HF_TOKEN",
            ) from error
        raise FailedError(f"{repo}: the hub answers {first_line(error)}") from error
    except (OfflineModeIsEnabled, HTTPError) as error:
        raise FailedError(f"{repo}: {api.endpoint} cannot be reached ({error})") from error
    except RuntimeError as error:  # of the upload of one large file
        raise FailedError(f"{repo}: {error} ({error.__cause__})") from error
    except ValueError as error:
        if "README.md" not in str(error):
            raise
        raise UserError(str(error).replace("\n", " "), where="README.md") from error
