"""A CNN of the published kind, small enough for a test."""

from torch import nn

from saccade.models.published import GreyInput, PublishedCNN


def small_cnn() -> PublishedCNN:
    seen = [GreyInput(), nn.AvgPool2d(4), nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    return PublishedCNN(nn.Sequential(*seen, nn.Flatten(), nn.Linear(8 * 8 * 8, 500), nn.ReLU()))
