"""Triton kernels of vlm3-recon; each operation has a plain PyTorch reference with the same signature."""
