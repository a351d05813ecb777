"""The ego vehicle: nuPlan's Chrysler Pacifica (nuplan-devkit `get_pacifica_parameters`)."""

LENGTH = 5.176  # [m] rear bumper to front bumper
WIDTH = 2.297  # [m] mirrors included
HEIGHT = 1.777  # [m]
REAR_AXLE_TO_FRONT = 4.049  # [m] rear axle to front bumper
REAR_AXLE_TO_REAR = 1.127  # [m] rear axle to rear bumper
REAR_AXLE_TO_CENTER = 1.461  # [m] rear axle to the centre of the box
WHEEL_BASE = 3.089  # [m]
