"""vlm3-recon: metric 3D models from photos by asking a vision-language model questions in text."""

# Before pycolmap, whichever module imports it: once its zlib is loaded, Pillow's own binds to parts of it, and writing
# a PNG then corrupts the heap (pycolmap 4.2.1 with Pillow 13.0).
import PIL.Image  # noqa: F401

__version__ = "0.1.0"
