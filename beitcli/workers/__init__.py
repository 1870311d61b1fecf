"""Workers: whole pipelines in other processes, on other devices and machines, behind one pool."""
