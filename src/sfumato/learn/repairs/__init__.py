"""What is measured on a trained model to mend or use it: mean errors, inputs for quantisation, noise levels."""
