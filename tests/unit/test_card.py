"""The model card: the hub's own class reads it back, and a stranger's words do nothing in it."""

import pytest
from huggingface_hub import ModelCard

from tests.unit.test_adapter_notes import notes
from vlmteach.card import card_of


def test_the_card_says_what_the_notes_say():
    card = ModelCard(str(card_of(notes(), "me/adapter")))
    data = card.data.to_dict()
    assert data["license"] == "cc-by-nc-sa-4.0"
    assert data["base_model"] == "owner/name"
    assert data["pipeline_tag"] == "image-to-video"
    assert data["widget"] == [{"text": "Go.", "output": {"url": "clip.mp4"}}]
    assert "goal: Is it there?\nprocess: Is it whole?" in card.text
    assert "| loss kept | `0.25` |" in card.text
    assert 'load_lora_adapter("me/adapter", weight_name="adapter.safetensors"' in card.text
    assert "on the expert `high_noise`" in card.text
    assert "Fuse the distillation LoRA `few_steps.safetensors` first." in card.text


def test_the_other_expert_is_the_pipeline_s_other_transformer():
    card = card_of(notes() | {"vlmteach.base_part": "low_noise"}, "")
    assert "pipe.transformer_2.load_lora_adapter" in card.text


def test_text_alone_and_a_base_that_is_nowhere_on_the_hub():
    told = notes() | {"vlmteach.image": "false", "vlmteach.base": "a folder"}
    data = card_of(told, "").data.to_dict()
    assert data["pipeline_tag"] == "text-to-video"
    assert "base_model" not in data


def test_the_licence_is_the_base_s_or_one_that_is_given():
    told = notes()
    del told["vlmteach.base_licence"]
    with pytest.raises(ValueError, match=r"got None for the base owner/name, .* --licence"):
        card_of(told, "")
    with pytest.raises(ValueError, match="got 'a: b'"):
        card_of(told, "", "a: b")
    assert card_of(told, "", "mit").data.to_dict()["license"] == "mit"
    data = card_of(told, "", "tencent-hunyuan-community").data.to_dict()
    assert (data["license"], data["license_name"]) == ("other", "tencent-hunyuan-community")


EVIL = "```\n<script>x</script> | ` {base} \n---\nlicense: mit\n---\n````` \x1b[2J ![](http://x)"


def test_a_stranger_s_words_stay_in_code():
    told = dict.fromkeys(notes(), EVIL) | {"vlmteach.base_licence": "mit"}
    told |= {"vlmteach.queries": '[{"role": "goal", "text": "``` <b>"}]'}
    card = ModelCard(str(card_of(told, EVIL)))
    data = card.data.to_dict()
    assert (data["license"], "base_model" in data) == ("mit", False)
    assert data["widget"][0]["text"] == EVIL
    outside, fence = [], ""
    for line in card.text.splitlines():
        run = line[: len(line) - len(line.lstrip("`"))]
        if fence:
            fence = "" if line == fence else fence
        elif len(run) >= 3:
            fence = run
        else:
            outside.append("".join(line.split("`")[::2]))  # without code within the line
    assert fence == ""
    text = "\n".join(outside)
    assert not any(bad in text for bad in ("script", "http://x", "\x1b", "<b>", "license: mit"))


def test_notes_that_are_none_make_a_card_all_the_same():
    for queries in ("[", "[1]", "{}", '[{"role": 1}]', "[" * 9999):
        card = card_of({"vlmteach.base_licence": "mit", "vlmteach.queries": queries}, "")
        assert card.data.to_dict()["license"] == "mit"
