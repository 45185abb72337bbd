"""Cards on demand, and what goes to the hub: tried on a stand-in for its client."""

from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import save

from tests.unit.test_adapter_notes import TENSORS, notes
from vlmteach import cli, push
from vlmteach.adapter_notes import noted


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    place = tmp_path / "one"
    place.mkdir()
    for name in ("adapter.safetensors", "adapter.comfyui.safetensors"):
        (place / name).write_bytes(noted(save(TENSORS), notes(), "diffusers"))
    for name in ("clip.mp4", "base.mp4", "fit.json", "queries.json", "done.json"):
        (place / name).write_bytes(b"x")
    return place


def hub(private=True, error=None):
    """A hub that takes what the real client would take, by its own signatures."""
    api = create_autospec(HfApi, instance=True)
    api.sent = None
    api.create_repo.side_effect = error
    api.repo_info.return_value.private = private

    def upload(*, repo_id, folder_path, allow_patterns, **_):
        there = [p.relative_to(folder_path).as_posix() for p in folder_path.rglob("*")]
        api.sent = sorted(filter_repo_objects(there, allow_patterns=allow_patterns))
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}")

    api.upload_folder.side_effect = upload
    return api


def test_only_adapter_card_and_clip_go_and_into_a_private_repository(folder):
    (folder / "deeper").mkdir()
    (folder / "deeper" / "clip.mp4").write_bytes(b"x")
    api = hub()
    assert push.push(folder, "me/it", public=False, api=api) == "https://hub/me/it"  # pyright: ignore
    api.create_repo.assert_called_once_with("me/it", private=True, exist_ok=True)
    assert api.sent == sorted(push.SHARED)
    assert "license: cc-by-nc-sa-4.0" in (folder / "README.md").read_text()


def test_a_card_of_the_user_s_stays(folder, capsys):
    (folder / "README.md").write_text("mine")
    push.push(folder, "me/it", public=True, api=hub(private=False))
    assert (folder / "README.md").read_text() == "mine"
    assert cli.main(["card", str(folder)]) == 2
    assert "remove it to have it anew" in capsys.readouterr().err


def test_a_public_repository_is_not_pushed_to_unasked(folder):
    api = hub(private=False)
    with pytest.raises(ValueError, match=r"which is public, .* add --public"):
        push.push(folder, "me/it", public=False, api=api)
    assert api.sent is None


def test_what_the_hub_answers_is_one_line(folder):
    api = hub(error=RuntimeError("403\nForbidden"))
    with pytest.raises(ValueError, match="got RuntimeError: 403 Forbidden from the hub"):
        push.push(folder, "me/it", public=False, api=api)


def test_nobody_logged_in_is_told_with_the_remedy(folder, capsys):
    assert cli.main(["push", str(folder), "--repo", "me/it"]) == 2
    assert "run `hf auth login`" in capsys.readouterr().err
    assert not (folder / "README.md").exists()


def test_a_dry_run_tells_and_leaves_all_as_it_was(folder, capsys):
    before = sorted(folder.iterdir())
    assert cli.main(["push", str(folder), "--repo", "me/it", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "would push to me/it, private:" in told
    assert "  adapter.safetensors  " in told
    assert "license: cc-by-nc-sa-4.0" in told
    assert "base.mp4" not in told
    assert sorted(folder.iterdir()) == before


def test_a_card_on_demand(folder, capsys):
    assert cli.main(["card", str(folder), "--licence", "mit"]) == 0
    assert capsys.readouterr().out == f"{folder / 'README.md'}\n"
    assert "license: mit" in (folder / "README.md").read_text()


def test_a_link_is_not_followed_to_the_hub(folder, tmp_path):
    (tmp_path / "secret").write_text("s")
    (folder / "clip.mp4").unlink()
    (folder / "clip.mp4").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="got a link or a folder"):
        push.push(folder, "me/it", public=False, api=hub())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{folder}", "--repo", "alone"], "expected user/name"),
        (["{folder}", "--repo", "../../x"], "error: "),
        (["nowhere", "--repo", "a/b"], "expected an instance's folder"),
    ],
)
def test_what_cannot_be_pushed_is_one_line(folder, words, told, capsys):
    given = [word.format(folder=folder) for word in words]
    assert cli.main(["push", *given]) == 2
    assert told in capsys.readouterr().err.splitlines()[0]


def test_a_licence_beside_a_card_is_refused(folder, capsys):
    push.write_card(folder, "me/it", "apache-2.0")
    with pytest.raises(ValueError, match=r"'mit' beside .*, which states one already"):
        push.push(folder, "me/it", public=False, licence="mit", api=hub())  # pyright: ignore
    words = ["push", str(folder), "--repo", "me/it", "--licence", "mit", "--dry-run"]
    assert cli.main(words) == 2
    assert "states one already" in capsys.readouterr().err
