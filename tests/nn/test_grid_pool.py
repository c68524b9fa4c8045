import pytest
import torch

from saccade.nn import GridPool


@pytest.mark.parametrize("size", [(6, 9), (5, 7), (2, 3), (1, 1)])
def test_each_cell_is_the_mean_of_its_part_of_the_map(size):
    maps = torch.rand(2, 4, *size)
    cells = GridPool()(maps).view(2, 4, 3, 3)
    for row in range(3):
        for column in range(3):
            top, left = row * size[0] // 3, column * size[1] // 3
            bottom, right = -(-(row + 1) * size[0] // 3), -(-(column + 1) * size[1] // 3)
            part = maps[:, :, top:bottom, left:right]
            assert torch.allclose(cells[:, :, row, column], part.mean((2, 3)), atol=1e-6)


def test_the_number_of_cells_is_that_of_the_result():
    pool = GridPool(2)
    assert pool.num_cells == 4
    assert pool(torch.rand(1, 5, 8, 8)).shape == (1, 20)


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_a_grid_that_cannot_be_is_told(size):
    with pytest.raises(ValueError, match="size"):
        GridPool(size)
