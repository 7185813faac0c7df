"""The losses by name: one small file each, pure functions of tensors, a registry."""
