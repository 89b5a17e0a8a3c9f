"""LCLM (arXiv 2606.09659) in MLX: a small encoder, and a chat model that reads what it makes.

An encoder turns every few tokens of a text into one latent; the decoder, a complete chat model,
reads latents and text mixed. `lclm.py` is the model, `regions.py` what of a prompt is compressed.
"""
