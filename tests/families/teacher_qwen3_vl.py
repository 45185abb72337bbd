"""The family `qwen3_vl`: Qwen3-VL."""

from tests.families import TeacherCase
from vlmteach.builtin.qwen_vl import save_random_qwen3_vl

CASE = TeacherCase(
    save=save_random_qwen3_vl,
    full_size={"qwen3_vl_4b": 4_437_815_808, "qwen3_vl_8b": 8_767_123_696},
    reads=15,
)
