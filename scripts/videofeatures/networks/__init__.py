"""From clips to features: networks, their weights, and the device they run on."""
