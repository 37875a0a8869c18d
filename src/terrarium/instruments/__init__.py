"""What we infer with: probes, detectors, interventions."""
