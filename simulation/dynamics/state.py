"""Columns of a simulated state of the rear axle; velocity and acceleration in the ego frame (navsim `StateIndex`)."""

X = 0  # [m]
Y = 1  # [m]
HEADING = 2  # [rad] in [-pi, pi)
VELOCITY_X = 3  # [m/s]
VELOCITY_Y = 4  # [m/s]
ACCELERATION_X = 5  # [m/s^2]
ACCELERATION_Y = 6  # [m/s^2]
STEERING_ANGLE = 7  # [rad]
STEERING_RATE = 8  # [rad/s]
ANGULAR_VELOCITY = 9  # [rad/s]
ANGULAR_ACCELERATION = 10  # [rad/s^2]
SIZE = 11  # number of columns
