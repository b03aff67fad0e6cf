"""Images: MNIST, CIFAR-10, the bundled subset, folders of pictures, arrays. May import config and what is below."""
