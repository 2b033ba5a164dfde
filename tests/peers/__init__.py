"""The library against torch, pytorch-metric-learning, optax, scikit-learn."""
