"""Deep Compression: a trained network as a file of a few bits a weight. Storage, not speed."""
