"""Software renderer of the synthetic world's front camera: numpy and OpenCV, no GPU, no graphics library."""
