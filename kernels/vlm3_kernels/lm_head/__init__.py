"""The language-model head for greedy decoding: argmax, log-sum-exp and top-2 margin of ``hidden @ weight.T``."""
