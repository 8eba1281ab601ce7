"""Pictures as text, small enough to lie inside a page."""

import numpy as np
from PIL import Image

from ebmzoo.report.pictures import data_uri, heat_map


def test_a_heat_map_has_its_first_axis_to_the_right_and_its_second_upwards(tmp_path):
    import base64
    import io

    values = np.full((3, 2), -5.0)
    values[2, 1] = 0.0
    picture = Image.open(io.BytesIO(base64.b64decode(heat_map(values, 4.0).partition(",")[2]))).convert("L")
    levels = np.asarray(picture).astype(int)
    assert levels.shape == (2, 3) and levels[0, 2] > 200 and np.delete(levels.flatten(), 2).max() < 5


def test_a_large_picture_is_made_small(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    address = data_uri(tmp_path / "large.png")
    assert address.startswith("data:image/jpeg;base64,") and len(address) < (tmp_path / "large.png").stat().st_size / 4
