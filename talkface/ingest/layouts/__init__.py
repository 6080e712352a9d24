"""One file a dataset layout: how its paths tell speaker, emotion, intensity and camera."""
