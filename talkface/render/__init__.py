"""Motion to pictures: the synthetic talking face and overlays."""
