"""How an architecture and a defense become a deployed model. May import models and what is below."""
