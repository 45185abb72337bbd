"""The family `qwen2_5_vl`: Qwen2.5-VL."""

from tests.families import TeacherCase
from vlmteach.builtin.qwen_vl import save_random_qwen2_5_vl

CASE = TeacherCase(
    save=save_random_qwen2_5_vl, full_size={"qwen2_5_vl_7b": 8_292_166_656}, reads=17
)
