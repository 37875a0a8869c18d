"""What a model did: outputs, and activations at named sites."""
