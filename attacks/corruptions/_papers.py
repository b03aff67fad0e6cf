"""The published sets, by the names that rows and tables give them, and their papers."""

from __future__ import annotations

CIFAR_10_C = "CIFAR-10-C"
EXTRA = "CIFAR-10-C extra"
MNIST_C = "MNIST-C"
OF_LARGE = {CIFAR_10_C: "ImageNet-C", EXTRA: "ImageNet-C extra"}

HENDRYCKS = "Hendrycks and Dietterich 2019, arXiv:1903.12261 (CIFAR-10-C, ImageNet-C)"
MU_GILMER = "Mu and Gilmer 2019, arXiv:1906.02337 (MNIST-C)"
