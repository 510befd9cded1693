"""Work in a thread beside an event loop that holds Python's lock."""

import gc
import sys
import time
import unittest
import weakref

import slicer

import support
from support import SlicerTestCase, processUntil, worstGap

support.useModuleFolder()

from MedGenSlicer.engine.background import Background


class Image:
    """Something large that a run hands over."""


def count(seconds: float) -> int:
    """Keep Python busy; a thread that cannot run does not get on with it."""
    steps, start = 0, time.thread_time()
    while time.thread_time() - start < seconds:
        steps += 1
    return steps


class BackgroundTest(SlicerTestCase):
    def ended(self, function):
        results, errors = [], []
        Background(function, results.append, errors.append)
        processUntil(lambda: results or errors, 20)
        return results, errors

    def testResultAndError(self):
        self.assertEqual(self.ended(lambda: 6 * 7), ([42], []))
        results, errors = self.ended(lambda: 1 / 0)
        self.assertEqual(results, [])
        self.assertIsInstance(errors[0], ZeroDivisionError)

    def testTheLoopGoesRoundMeanwhile(self):
        results = []
        with worstGap() as gap:
            Background(lambda: count(0.3), results.append, results.append)
            processUntil(lambda: results, 20)
        self.assertGreater(results[0], 0)
        self.assertLess(gap.milliseconds, 50)

    def testGoesOnWhereOnlyThePollLetsGoOfTheLock(self):
        # In Slicer's event loop nothing of Python runs for a long time, so that no thread can ask for the lock.
        interval = sys.getswitchinterval()
        results, start = [], time.monotonic()
        sys.setswitchinterval(100)
        try:
            # The sleep hands the lock back to this thread.
            Background(lambda: time.sleep(0.02) or count(0.05), results.append, results.append)
            while not results and time.monotonic() - start < 5:
                slicer.app.processEvents()
                support.idle(0.002)
        finally:
            sys.setswitchinterval(interval)
        self.assertEqual(len(results), 1)

    def testNothingIsKeptAfterwards(self):
        kept = []
        Background(Image, lambda image: kept.append(weakref.ref(image)), kept.append)
        processUntil(lambda: kept, 20)
        for _ in range(3):  # the timer's own event has to end first
            slicer.app.processEvents()
        gc.collect()
        self.assertIsNone(kept[0]())


if __name__ == "__main__":
    unittest.main()
