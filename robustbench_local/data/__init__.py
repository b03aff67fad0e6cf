"""Images: MNIST, CIFAR-10, folders and tables of pictures, arrays. May import config and what is below."""
