"""EMO (Tian 2024): Stable Diffusion 1.5's UNet made to draw talking faces.

``unet`` the backbone and the ReferenceNet, ``walk`` the one way through both, ``temporal`` and ``conditions`` what EMO
adds, ``model`` the whole with what each stage trains, ``keys`` the names of public weight files.
"""
