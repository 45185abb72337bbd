"""Private names stay in their module: nobody borrows `_x` across files, ours or another's."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
OURS = ("vlmteach", "callbacks", "benchmarks")
SOURCES = [
    path for room in OURS for path in sorted((ROOT / room).rglob("*.py")) if not path.is_symlink()
]
BORROWED = {
    # diffusers' pipeline as our parity tests know it; diffusers is held below 0.43.
    ("vlmteach/reasoners/hunyuan15.py", "_get_mllm_prompt_embeds"),
    ("vlmteach/reasoners/hunyuan15.py", "_get_byt5_prompt_embeds"),
    ("vlmteach/reasoners/hunyuan15.py", "_get_image_embeds"),
    ("vlmteach/reasoners/hunyuan15.py", "_get_image_latents"),
    # The VAE's frame-by-frame cache, which training walks through; and the attention that a
    # network has when nothing was set.
    ("benchmarks/mini/train/autoencoder.py", "_feat_map"),
    ("benchmarks/mini/train/pipeline.py", "_default_processor_cls"),
    # peft's documented door for LoRA layers of one's own; below 0.22.
    ("vlmteach/lora.py", "_register_custom_module"),
    # Which layers stay in float32, as `from_pretrained` decides it.
    ("vlmteach/checkpoints/hollow.py", "_keep_in_fp32_modules"),
    # Lightning's launcher of further processes, there for want of a public one; below 2.7.
    ("vlmteach/strategies.py", "_Launcher"),
    ("vlmteach/strategies.py", "_signal_connector"),
    # The options of a parser that jsonargparse made: a section as a whole stays out of --help.
    ("vlmteach/options.py", "_actions"),
    # torch's attention kernels by their own names, which a policy of recomputation goes by.
    ("vlmteach/recompute.py", "_scaled_dot_product_flash_attention"),
    ("vlmteach/recompute.py", "_scaled_dot_product_flash_attention_for_cpu"),
    ("vlmteach/recompute.py", "_scaled_dot_product_efficient_attention"),
    ("vlmteach/recompute.py", "_scaled_dot_product_cudnn_attention"),
    ("vlmteach/recompute.py", "_scaled_dot_product_fused_attention_overrideable"),
    # How torch lets operations be counted; at most 2.13.
    ("vlmteach/plan/count.py", "torch.utils._python_dispatch"),
    ("vlmteach/plan/count.py", "torch.utils._pytree"),
    ("vlmteach/plan/count.py", "_to_copy"),
    ("vlmteach/plan/count.py", "_local_scalar_dense"),
    # A storage's identity where it has no address.
    ("benchmarks/speed/timing.py", "_cdata"),
    # The end of a fork, without that of the process it was forked from; documented by Python.
    ("benchmarks/hostile/yard.py", "_exit"),
}
"""(file, private name of a third party): all there are, with the reason and the pin."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined(tree: ast.AST) -> set[str]:
    """What a file calls its own: all that it defines, assigns or declares, at any depth."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


def borrowed(tree: ast.AST, inherited: set[str]) -> Iterator[str]:
    """The private names that a file takes from elsewhere.

    Args:
        inherited: names that a class of ours may have from a base class in another file of ours.
    """
    own = defined(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if any(map(is_private, (node.module or "").split("."))):
                yield node.module or ""
            yield from (name.name for name in node.names if is_private(name.name))
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            of_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if not (of_self and node.attr in inherited):
                yield node.attr


def test_no_private_name_is_borrowed_but_those_listed():
    trees = {path: ast.parse(path.read_text()) for path in SOURCES}
    ours = set().union(*map(defined, trees.values()))
    found = {
        (path.relative_to(ROOT).as_posix(), name)
        for path, tree in trees.items()
        for name in borrowed(tree, ours)
    }
    assert found == BORROWED


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from vlmteach.lora import _slot", ["_slot"]),
        ("from torch._inductor import config", ["torch._inductor"]),
        ("import vlmteach.lora as lora\nlora._slot()", ["_slot"]),
        ("teacher._chat", ["_chat"]),
        ("self._theirs", ["_theirs"]),
        ("self._base_s", []),
        ("class A:\n  def _f(self): ...\n  def g(self, other): other._f()", []),
        ("from __future__ import annotations\nx.__class__", []),
    ],
)
def test_borrowing_is_seen(source, names):
    assert Counter(borrowed(ast.parse(source), {"_base_s"})) == Counter(names)
