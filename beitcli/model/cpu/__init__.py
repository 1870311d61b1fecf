"""Fast paths on CPUs: compiled networks, AMX, packed weights, a heap that is kept."""
