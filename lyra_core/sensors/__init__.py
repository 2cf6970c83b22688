"""What a camera, a depth camera or a laser scanner would see of a world: one ray caster for all of them.

caster = Caster(gaussians)
capture = caster.capture(fisheye_rays(...), world_to_cam)  # colour, depth, range, normals of the same rays
"""

from lyra_core.sensors.cast import Cast, Caster
from lyra_core.sensors.lidar import LidarModel
from lyra_core.sensors.rays import Rays, fisheye_rays, lidar_rays, pinhole_rays
from lyra_core.sensors.returns import write_lidar_ply

__all__ = ["Cast", "Caster", "LidarModel", "Rays", "fisheye_rays", "lidar_rays", "pinhole_rays", "write_lidar_ply"]
