"""A laboratory for model organisms: small models grown in worlds whose exact right output is known."""
