"""What every program needs and that knows nothing of Cellplane's business."""
