"""How fast it is here: what `beit bench` measures."""
