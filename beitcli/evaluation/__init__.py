"""How well a model does on pictures whose classes are known."""
