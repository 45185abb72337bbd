"""The family `internvl`: InternVL3 and InternVL3.5."""

from tests.families import TeacherCase
from vlmteach.builtin.internvl import save_random_internvl

CASE = TeacherCase(save=save_random_internvl, full_size={"internvl3_8b": 7_944_373_760}, reads=3)
