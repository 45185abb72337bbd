"""Checkpoints known by name, and those whose configs lie in the Hub's cache."""

import pytest

from vlmteach.plan.known import architecture, in_hub_cache

MARKS = ("model_index.json", *(f"{p}/config.json" for p in ("transformer", "vae", "text_encoder")))


def test_an_unknown_checkpoint_is_refused_by_name():
    with pytest.raises(ValueError, match="got 'a/b'"):
        architecture("a/b")


@pytest.mark.parametrize("missing", [None, "vae/config.json"])
def test_the_cache_counts_only_where_all_configs_are_there(monkeypatch, tmp_path, missing):
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda name, file: None if file == missing or file not in MARKS else str(tmp_path / file),
    )
    assert in_hub_cache("a/b") == (None if missing else tmp_path)


def test_a_path_is_no_hub_id():
    assert in_hub_cache("no/such/folder") is None
