"""The recipe: one frozen pydantic model a section, one file a section. A leaf: imports nothing heavier than pydantic."""
