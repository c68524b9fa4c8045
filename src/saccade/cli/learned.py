"""Which clips a model has learned from, as far as the header of its checkpoint tells it."""

from collections.abc import Iterable
from pathlib import Path

from saccade.checkpoint import Header
from saccade.data import Folder, collection
from saccade.errors import DataError, UsageError


def num_learned(clips: Iterable[Path], header: Header) -> int:
    """Return how many clips lie where a model's training clips lay.

    A header names the clips that were held out or left out. All others of the collection count as learned, also those
    that were added to it later.

    Args:
        clips: files.
        header: the header of the model's checkpoint.
    """
    try:
        if not isinstance(header.data_config(), Folder):
            return 0
    except (DataError, UsageError):  # nothing is known of the clips
        return 0
    described = header.data["config"]
    root = Path(described["root"])
    others = {name for names in described.get("clips", {}).values() for name in names}
    others.update(described.get("left_out", ()))
    places = [clip.parent.resolve() / clip.name for clip in clips]
    if root.is_dir():
        # Directly in the folder there is no class.
        inside = [place.relative_to(root) for place in places if place.parent != root and place.is_relative_to(root)]
        return sum(name.as_posix() not in others for name in inside)
    try:
        rows = collection.read(root, group=described.get("group"))
    except DataError:  # the table has moved or changed: nothing is known of these files
        return 0
    learned = {
        entry.path.parent.resolve() / entry.path.name
        for entry in rows.entries
        if rows.name_of_entry(entry) not in others
    }
    return sum(place in learned for place in places)
