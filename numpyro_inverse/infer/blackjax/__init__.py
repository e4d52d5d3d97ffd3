"""BlackJAX's samplers as NumPyro kernels. Importing this package starts JAX's backends."""

from numpyro_inverse.infer.blackjax._kernel import BlackJAX as BlackJAX
