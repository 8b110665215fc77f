"""How a bundle's stages get to a scheduler once and only once: the parts behind `jobs`."""
