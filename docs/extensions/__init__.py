"""What the pages need of Sphinx beyond its own extensions."""
