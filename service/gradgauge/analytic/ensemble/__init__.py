"""The analytic engine over the ensemble of a spec's initial laws: mean-field theory."""
