"""Software renderer of the synthetic world's front camera: numpy and OpenCV, no GPU, no graphics library.

`render_front_camera(view: scene.RenderScene, camera: mtdrive.simulation.camera.PinholeCamera)` makes the picture.
"""

from mtdrive.simulation.synthetic.rendering.renderer import render_front_camera

__all__ = ["render_front_camera"]
