"""The recipe: one frozen pydantic model a section, one file a section. A leaf: pydantic is all it needs."""
