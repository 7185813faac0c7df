"""The shared language of rayzero: messages, interfaces, errors and the recipe. Imports no torch, vllm or ray."""
