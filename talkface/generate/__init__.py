"""From trained models to motion and pictures."""
