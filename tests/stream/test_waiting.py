"""The queue in which the newest frame wins, or no frame is lost."""

import threading
import time

import pytest
import torch

from saccade.errors import DataError
from saccade.stream.live_frame import LiveFrame
from saccade.stream.waiting import LATE_S, Waiting

PIXELS = torch.zeros(1, 2, 2, dtype=torch.uint8)


def put(waiting, *numbers, ago_s=0.0, begins=()):
    now_s = time.monotonic()
    for number in numbers:
        waiting.put(LiveFrame(PIXELS, float(number), now_s - ago_s + number / 1e6, number in begins))


def test_a_consumer_that_keeps_up_gets_a_burst_in_order():
    waiting = Waiting(most=100)
    put(waiting, *range(5), ago_s=-60)  # they will not be late in this test
    assert [waiting.take().time_s for _ in range(5)] == [0, 1, 2, 3, 4]
    assert waiting.dropped == 0


def test_a_consumer_that_is_late_gets_the_newest_until_it_has_caught_up():
    waiting = Waiting(most=100)
    put(waiting, 0, 1, 2, ago_s=2 * LATE_S)
    assert waiting.take().time_s == 2
    put(waiting, 3, 4, ago_s=-60)
    assert waiting.take().time_s == 4  # still behind: more than one waited
    put(waiting, 5, ago_s=-60)
    assert waiting.take().time_s == 5
    put(waiting, 6, 7, ago_s=-60)
    assert waiting.take().time_s == 6  # it has caught up
    assert waiting.dropped == 3


def test_the_queue_is_bounded_without_a_consumer():
    waiting = Waiting(most=7)
    put(waiting, *range(1000), ago_s=-60)
    waiting.end()
    assert waiting.dropped == 993
    assert waiting.take().time_s == 993


def test_a_source_that_can_wait_waits_while_the_queue_is_full():
    waiting, taken = Waiting(most=3), []
    waiting.is_live = False
    producer = threading.Thread(target=lambda: (put(waiting, *range(50), ago_s=2 * LATE_S), waiting.end()))
    producer.start()
    producer.join(0.2)
    assert producer.is_alive()
    while (frame := waiting.take()) is not None:
        taken.append(frame.time_s)
    producer.join()
    assert taken == list(range(50))
    assert waiting.dropped == 0


def test_closing_lets_a_waiting_producer_go_on():
    waiting = Waiting(most=3)
    waiting.is_live = False
    producer = threading.Thread(target=lambda: put(waiting, *range(10)), daemon=True)
    producer.start()
    producer.join(0.2)
    assert producer.is_alive()
    waiting.close()
    producer.join(30)
    assert not producer.is_alive()


def test_repeats_that_became_known_at_once_are_not_dropped_for_each_other():
    waiting = Waiting(most=3)
    for number in range(10):
        waiting.put(LiveFrame(PIXELS, float(number), 1e9, False))
    assert waiting.dropped == 0


def test_a_beginning_is_not_dropped_with_its_frame():
    waiting = Waiting(most=100)
    put(waiting, 0, 1, 2, ago_s=2 * LATE_S, begins={1})
    assert waiting.take().begins
    put(waiting, 3, ago_s=-60)
    assert not waiting.take().begins


def test_lines_come_before_frames_and_the_end_behind_them():
    waiting = Waiting(most=100)
    put(waiting, 0, ago_s=-60)
    waiting.say("one line")
    waiting.end(DataError("lost"))
    assert waiting.take() == "one line"
    assert waiting.take().time_s == 0
    with pytest.raises(DataError, match="lost"):
        waiting.take()


def test_a_waiting_consumer_wakes_up_at_the_end():
    waiting, taken = Waiting(most=3), []
    consumer = threading.Thread(target=lambda: taken.append(waiting.take()))
    consumer.start()
    waiting.end()
    consumer.join()
    assert taken == [None]
