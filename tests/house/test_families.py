"""A family is added everywhere or nowhere: literal types, tables and tests name the same ones."""

import pytest

from tests.families import cases
from vlmteach import families
from vlmteach.families import DECODERS, FULL, REASONERS, TEACHERS, family_class

KINDS = {
    "reasoner": (families.ReasonerFamily, set(REASONERS)),
    "teacher": (families.TeacherFamily, set(TEACHERS)),
    "decoder": (families.DecoderFamily, {*DECODERS, FULL}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_literal_type_table_and_tests_name_the_same_families(kind):
    literal, table = KINDS[kind]
    assert set(literal.__args__) == table
    assert set(cases(kind)) == table


@pytest.mark.parametrize("table", [REASONERS, TEACHERS, DECODERS], ids=["r", "t", "d"])
def test_every_name_of_a_table_leads_to_a_class(table):
    for name, path in table.items():
        found = family_class(table, name)
        assert f"{found.__module__}.{found.__name__}" == path
        assert family_class(table, path) is found
