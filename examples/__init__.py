"""Three scripts on the miniature, from the repository's root: `python -m examples.NAME FOLDER`."""
