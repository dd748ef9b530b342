"""What the runs in a store say: the analyses of Heterogeneous Swarms (arXiv 2502.04510)."""
