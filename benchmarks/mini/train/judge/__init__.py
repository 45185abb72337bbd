"""The judge of the miniature: a model of another kind than the teacher, which nothing climbs."""
