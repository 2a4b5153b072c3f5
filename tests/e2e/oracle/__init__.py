"""Real DeepSpeed on CPU as the oracle that ckptfs views are compared with."""
