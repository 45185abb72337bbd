"""`vlmteach card` and `vlmteach push`: one adapter told of, and shared on the hub.

Nothing heavy is imported before the arguments have been read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlmteach import exits
from vlmteach.adapter_notes import ADAPTER, COMFYUI, read_notes
from vlmteach.record import write_text
from vlmteach.rows import CLIP
from vlmteach.stops import stoppable
from vlmteach.text import printable

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"
SHARED = (ADAPTER, COMFYUI, CLIP, CARD)
"""What goes to the hub of an instance's folder, and nothing else."""


def parser(name: str) -> argparse.ArgumentParser:
    """The options of `card` or of `push`."""
    told = {
        "card": f"Writes the model card of one adapter, {CARD}, into its folder.",
        "push": f"Shares one adapter on the Hugging Face hub: {', '.join(SHARED)}, as far as they "
        "are there. The card is made where there is none.",
    }[name]
    cli = argparse.ArgumentParser(prog=f"vlmteach {name}", description=told, allow_abbrev=False)
    cli.add_argument(
        "folder", type=Path, metavar="RUN/INSTANCE", help=f"an instance's folder, with {ADAPTER}"
    )
    cli.add_argument("--repo", required=name == "push", metavar="USER/NAME", help="on the hub")
    cli.add_argument(
        "--licence", help="of the base, by its name on the hub (default: as the adapter tells)"
    )
    if name == "push":
        cli.add_argument(
            "--public", action="store_true", help="for everybody (default: a private repository)"
        )
        cli.add_argument("--dry-run", action="store_true", help="only tell what would go")
    return cli


def card_command(words: Sequence[str]) -> int:
    """Runs `vlmteach card`: 0 when the card is written, 2 when it could not be."""
    own = parser("card").parse_args(words)
    try:
        if (own.folder / CARD).exists():
            raise ValueError(f"got {own.folder / CARD}, expected none; remove it to have it anew")
        print(printable(str(write_card(own.folder, own.repo or "", own.licence))))
    except (ValueError, OSError) as error:
        return exits.refused(error, "(vlmteach card --help lists the options)")
    return 0


def push_command(words: Sequence[str]) -> int:
    """Runs `vlmteach push`: 0 when the adapter is on the hub, 2 when it could not be."""
    own = parser("push").parse_args(words)
    try:
        with stoppable():
            _check_repo(own.repo)
            if own.dry_run:
                _dry_run(own.folder, own.repo, own.licence, own.public)
            else:
                print(push(own.folder, own.repo, public=own.public, licence=own.licence))
    except (ValueError, OSError) as error:
        return exits.refused(error, "(vlmteach push --help lists the options)")
    return 0


def write_card(folder: Path, repo: str, licence: str | None) -> Path:
    """Writes an adapter's card into its folder.

    Raises:
        ValueError: no adapter, or no licence.
    """
    write_text(folder / CARD, f"{_card(folder, repo, licence)}\n")
    return folder / CARD


def _card(folder: Path, repo: str, licence: str | None) -> str:
    from vlmteach.card import card_of

    return str(card_of(read_notes(folder / ADAPTER), repo, licence)).rstrip()


def push(
    folder: Path, repo: str, *, public: bool, licence: str | None = None, api: HfApi | None = None
) -> str:
    """Shares one adapter: `SHARED` of a folder, as far as they are there, in one commit.

    Args:
        folder: an instance's; a card is written into it where there is none.
        repo: `user/name`; made where it is not there.
        public: else the repository must be private.
        licence: for a card that is made, in place of what the adapter tells.
        api: the hub; None: the one that is logged in to.

    Returns:
        The address of the commit.

    Raises:
        ValueError: no adapter, no licence, nobody is logged in, a repository that is public and was
            not asked to be, or what the hub answers.
    """
    from huggingface_hub import HfApi, get_token

    _shared(folder)
    if api is None and get_token() is None:
        raise ValueError(
            "push: got no token of the hub, expected a login; run `hf auth login`, or set HF_TOKEN"
        )
    if not (folder / CARD).exists():
        write_card(folder, repo, licence)
    elif licence is not None:
        raise ValueError(_second_licence(folder, licence))
    api = api or HfApi()
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        if not public and not api.repo_info(repo).private:
            raise ValueError(
                f"--repo: got {repo}, which is public, expected a private one; add --public, or "
                "name another"
            )
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=_shared(folder),
            commit_message="Adapter of one instance, fitted by vlmteach",
        )
    except ValueError:
        raise
    except Exception as error:  # whatever the HTTP client of the day raises
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(
            f"--repo: got {why} from the hub, expected it to take the files; check the name, the "
            "token's rights and the network"
        ) from error
    return str(commit.commit_url)


def _second_licence(folder: Path, licence: str) -> str:
    """Why a licence is refused beside a card, which states its own."""
    return (
        f"--licence: got {licence!r} beside {folder / CARD}, which states one already, expected "
        "one of them; change the card, or remove it"
    )


def _check_repo(repo: str) -> None:
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(repo)
    if repo.count("/") != 1:
        raise ValueError(f"--repo: got {repo!r}, expected user/name")


def _shared(folder: Path) -> list[str]:
    """Names of the files that would go.

    Raises:
        ValueError: no adapter, or a link, which might lead anywhere.
    """
    there = [name for name in SHARED if (folder / name).is_symlink() or (folder / name).exists()]
    if ADAPTER not in there:
        raise ValueError(f"got {folder}, expected an instance's folder with {ADAPTER}")
    for name in there:
        if (folder / name).is_symlink() or not (folder / name).is_file():
            raise ValueError(f"{folder / name}: got a link or a folder, expected a plain file")
    for name in {ADAPTER, COMFYUI} & {*there}:
        read_notes(folder / name)  # refuses one that was cut off
    return there


def _dry_run(folder: Path, repo: str, licence: str | None, public: bool) -> None:
    files = _shared(folder)
    print(f"would push to {repo}, {'public' if public else 'private'}:")
    for name in files:
        print(f"  {name}  {(folder / name).stat().st_size} bytes")
    if CARD not in files:
        print(f"  {CARD}  made now:\n\n{_card(folder, repo, licence)}")
    elif licence is not None:
        raise ValueError(_second_licence(folder, licence))
    print("nothing was sent", file=sys.stderr)
