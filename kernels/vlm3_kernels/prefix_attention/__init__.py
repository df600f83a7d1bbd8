"""Attention of packed question suffixes over one shared prefix and each question's own tokens."""
